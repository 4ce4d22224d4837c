"""Times a system and its training.

    python -m jax_kdpr.benchmark --config configs/paper/student.py

Each case is first compiled by itself. Then all cases are called in turn, and each call is
synchronised. In --output, benchmark.jsonl gets one JSON row per case, and benchmark.md a table. The
config gives the sizes; no data are read, and a student needs no folder of a teacher.

--compile_only stops before the first call: it shows that every shape of a config compiles, how much
memory each program needs, and how much it has to compute. --against torch times the same system in
PyTorch, in turn with ours, after checking that both give the same numbers in float32. The steps in
PyTorch get their images as ready floats, while ours gather and resize them. --sweep
snapshots=1,3,9 (or size, iterations, batch) times inference and the E2E step over a range.
--for h100 compiles every case for one H100, which need not be there, and counts kernels, bytes and
memory of one step or one batch; it needs the extra `aot`.
Two cases take one frame on one device, the second through `Run.reconstruct`; neither is compiled
beforehand. Each kind of convolution in the U-Net is timed only with --only convolution.
"""

import json
from pathlib import Path
from typing import Any

import jax
from absl import flags

from jax_kdpr.config import checks
from jax_kdpr.config.schema import Config
from jax_kdpr.core import json_files, runtime, whole_files
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.options import flatten
from jax_kdpr.evaluation import plots
from jax_kdpr.evaluation.speed import report
from jax_kdpr.evaluation.speed.against_torch import MODES, time_against
from jax_kdpr.evaluation.speed.ahead import TARGETS
from jax_kdpr.evaluation.speed.session import (
    Wanted,
    count_config,
    make_shape,
    read_sweep,
    time_config,
    time_sweep,
)
from jax_kdpr.evaluation.speed.torch_worker import require_twin
from jax_kdpr.interface import cli
from jax_kdpr.interface.one_frame import one_frame_cases

CONFIG = cli.define_config()
OUTPUT = flags.DEFINE_string(
    "output",
    "runs/benchmark",
    "Folder for rows, tables and plots; those of an earlier command are replaced.",
)
CALLS = flags.DEFINE_integer(
    "calls", 20, "Timed calls of each case.", lower_bound=1, upper_bound=1_000_000
)
TEACHER = flags.DEFINE_integer(
    "teacher_snapshots", 9, "Snapshots of the teacher.", lower_bound=1, upper_bound=4096
)
ONLY = flags.DEFINE_string("only", "", "Run only the cases whose name begins so.")
COMPILE_ONLY = flags.DEFINE_bool("compile_only", False, "Compile, and time nothing.")
FOR = flags.DEFINE_string("for", "", "h100: compile for a GPU that is not there, and count.")
AGAINST = flags.DEFINE_string("against", "", "torch, or torch-compile: time PyTorch too.")
SWEEP = flags.DEFINE_multi_string("sweep", [], "NAME=V1,V2,...; may be given several times.")


def main(positional: list[str]) -> int:
    """Runs the benchmark that the flags ask for."""
    cli.require_no_more(positional)
    config = checks.ready(
        cli.load_config(CONFIG, Config), stand_in_teacher="none: timed at its random start"
    )
    sweeps = [read_sweep(text, config) for text in SWEEP.value]
    _check_flags([config, *(trial for _, trials in sweeps for trial in trials.values())])
    if AGAINST.value:
        require_twin(flatten(config))
    # With the cache, the time of a compilation would be that of a lookup.
    jax.config.update("jax_enable_compilation_cache", False)
    output = Path(OUTPUT.value)
    whole_files.require_writable("--output", output)
    alone = f"against-{AGAINST.value}" if AGAINST.value else "benchmark"
    alone = "memory" if COMPILE_ONLY.value else alone
    alone = f"for-{FOR.value}" if FOR.value else alone
    for name in [f"sweep-{name}" for name, _ in sweeps] or [alone]:
        json_files.require_own(
            *("--output", output / f"{name}.jsonl", {"case": str}),
            command="benchmark",
            beside=(f"{name}.md", f"{name}.png"),
        )
    wanted = Wanted(
        calls=CALLS.value,
        teacher_snapshots=TEACHER.value,
        only=ONLY.value,
        convolutions=bool(ONLY.value) and not AGAINST.value,  # on request only
        compile_only=COMPILE_ONLY.value,
    )
    for name, trials in sweeps:
        rows = time_sweep(name, trials, wanted)
        _write(output, f"sweep-{name}", rows, report.sweep_table(name, rows))
        plots.plot_sweep(name, rows, output / f"sweep-{name}.png")
    if AGAINST.value:
        rows = time_against(config, wanted, AGAINST.value)
        _write(output, alone, rows, report.comparison_table(rows))
    elif FOR.value:
        rows = count_config(config, wanted, FOR.value)
        _write(output, alone, rows, report.counted_table(rows))
    elif not sweeps:
        frames = [] if COMPILE_ONLY.value else one_frame_cases(make_shape(config, wanted))
        rows = time_config(config, wanted, also=frames)
        _write(output, alone, rows, report.table(rows))
    return 0


def _check_flags(configs: list[Config]) -> None:
    """Refuses what memory cannot hold, and flags that do not go together."""
    for trial in configs:
        runtime.require_memory(checks.MEMORY, checks.training_bytes(trial))
    if AGAINST.value and AGAINST.value not in MODES:
        raise InputError(f"--against: expected torch or torch-compile, got {AGAINST.value!r}")
    if AGAINST.value and (SWEEP.value or COMPILE_ONLY.value):
        raise InputError("--against: goes with neither --sweep nor --compile_only; leave it out")
    if FOR.value and FOR.value not in TARGETS:
        raise InputError(f"--for: expected {' or '.join(TARGETS)}, got {FOR.value!r}")
    if FOR.value and (SWEEP.value or COMPILE_ONLY.value or AGAINST.value):
        raise InputError(
            "--for: goes with none of --against, --sweep, --compile_only; leave it out"
        )
    if ONLY.value and SWEEP.value:
        raise InputError("--only: a sweep has its own cases; leave it out")


def _write(output: Path, name: str, rows: list[dict[str, Any]], text: str) -> None:
    cli.make_folder("--output", output)
    whole_files.write_text(
        output / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows)
    )
    whole_files.write_text(output / f"{name}.md", text + "\n")
    print(f"\n{text}\n\nwritten: {output}/{name}.jsonl and .md")


if __name__ == "__main__":
    cli.run(main)
