"""Flags of a command that several processes run as one."""

from absl import flags

from jax_kdpr.core import processes
from jax_kdpr.core.errors import InputError

COORDINATOR = flags.DEFINE_string(
    "coordinator",
    "",
    "Joins several processes: HOST:PORT of the first, or auto under SLURM or Kubernetes.",
)
PROCESSES = flags.DEFINE_integer(
    "processes", None, "How many processes there are.", lower_bound=1, upper_bound=10**5
)
PROCESS = flags.DEFINE_integer(
    "process", None, "Which of them this is, from 0.", lower_bound=0, upper_bound=10**5
)


def join() -> None:
    """Finds the other processes, if there are any.

    Raises:
        InputError: As `processes.join`.
    """
    if COORDINATOR.value:
        processes.join(COORDINATOR.value, PROCESSES.value, PROCESS.value)
        return
    for flag in (PROCESSES, PROCESS):
        if flag.present:
            raise InputError(f"--{flag.name}: is read only with --coordinator; give both")
