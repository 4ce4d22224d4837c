"""Flags of the solver after the network, for `evaluate`, `reconstruct` and `tolerance`."""

from absl import flags

from jax_kdpr.core.errors import InputError
from jax_kdpr.recovery.refinement import NO_REFINEMENT, Refinement
from jax_kdpr.recovery.solvers import SOLVERS, reads, solver_names

STEPS = flags.DEFINE_integer(
    "refine",
    NO_REFINEMENT.steps,
    "Steps of a solver after the network: error reduction gains much without noise, and does harm "
    "at an SNR of 20 dB.",
    lower_bound=0,
    upper_bound=1_000_000,
)
SOLVER = flags.DEFINE_string(
    "refine_with",
    NO_REFINEMENT.solver,
    f"The solver of --refine: one of {', '.join(SOLVERS)}, or your own.",
)
TV = flags.DEFINE_float(
    "refine_tv",
    NO_REFINEMENT.tv,
    "Weight of the total-variation prior of --refine_with=accelerated, for noisy frames: 0.01 to "
    "0.1 of the object's modulus is a lot.",
    lower_bound=0.0,
    upper_bound=1000000.0,
)


def read_refinement(default: Refinement = NO_REFINEMENT) -> Refinement:
    """Returns the refinement that the flags ask for; `default` gives what they leave out.

    Raises:
        InputError: If nothing would read one of the flags.
    """
    named = SOLVER.value if SOLVER.present else default.solver
    (solver,) = solver_names("--refine_with", [named])
    prior = default.tv if solver == default.solver else NO_REFINEMENT.tv
    steps = STEPS.value if STEPS.present else default.steps
    asked = Refinement(steps, solver, TV.value if TV.present else prior)
    if asked.solver != NO_REFINEMENT.solver and not asked.steps:
        raise InputError("--refine_with: nothing would read it; give --refine N too")
    if asked.tv and not (reads(solver, "tv") and asked.steps):
        raise InputError(
            "--refine_tv: nothing would read it; give --refine N and --refine_with=accelerated too"
        )
    return asked
