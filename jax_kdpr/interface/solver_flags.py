"""Flags of a solver in place of the network; `reconstruct` and `tolerance` share them."""

from typing import NamedTuple

from absl import flags

from jax_kdpr.interface import refine_flags
from jax_kdpr.recovery.refinement import NO_REFINEMENT, Refinement
from jax_kdpr.recovery.solver_system import ALONE
from jax_kdpr.recovery.solver_system import STARTS as COMMON
from jax_kdpr.recovery.solvers import require_projection
from jax_kdpr.runs.run import Run

flags.adopt_module_key_flags(refine_flags)
STARTS = flags.DEFINE_integer(
    "starts",
    0,
    f"Recover by a solver alone, that of --refine or {ALONE.steps} steps of {ALONE.solver}, from "
    "so many spectral estimates, of which the one that ends nearest to the frames counts; 0: by "
    f"the network, or {COMMON} where there is none.",
    lower_bound=0,
    upper_bound=10_000,
)


class Recovery(NamedTuple):
    """How a run is asked to recover."""

    run: Run  # with the solver in place of its network, if asked for
    solver: Refinement  # that solver, or the one that follows the network
    starts: int  # of the solver; 0 for the network

    @property
    def refinement(self) -> Refinement:
        """The solver that follows the network."""
        return NO_REFINEMENT if self.starts else self.solver


def read_recovery(run: Run) -> Recovery:
    """Returns how to recover, by the flags and by whether the run has a network.

    Raises:
        InputError: As `refine_flags.read_refinement`.
    """
    starts = STARTS.value or (0 if run.is_trained else COMMON)
    solver = refine_flags.read_refinement(ALONE if starts else NO_REFINEMENT)
    if starts:
        run = run.by_solver(solver, starts=starts)
    return Recovery(run, solver, starts)


def require_usable(recovery: Recovery) -> None:
    """Refuses a solver that cannot work with the optics, which must be the final ones.

    Raises:
        InputError: If so; the message names solvers that can.
    """
    if recovery.solver.steps:
        require_projection(recovery.solver.solver, recovery.run.optics)
