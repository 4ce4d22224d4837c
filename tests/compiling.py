"""Flags of XLA for what is compiled to run a few times: the tests, and the gallery of the docs.

Most of their time would go into compiling: hence no LLVM optimisation, XLA's older emitters (a
third of the time of those by MLIR), and one thread for each device, as `runtime.set_up` has it.
"""

from importlib.metadata import version

QUICKLY_COMPILED = "--xla_backend_optimization_level=0 --xla_cpu_multi_thread_eigen=false"
if version("jaxlib").startswith("0.10."):  # a flag that XLA does not know ends the process
    QUICKLY_COMPILED += (
        " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    )
