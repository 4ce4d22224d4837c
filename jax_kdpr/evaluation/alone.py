"""How good the masks and the filter of a run are without its network."""

from pathlib import Path
from typing import Any

from jax_kdpr.evaluation import solvers
from jax_kdpr.evaluation.solvers import START, Plan
from jax_kdpr.evaluation.uniqueness import comparison
from jax_kdpr.runs.run import load_run

OPTICS_FILE = "optics.json"  # in a run folder
SOLVER, STEPS = "error_reduction", 100
IMAGES, SCENES = 128, 4  # test images for the recoveries, and for the bounds
PHOTONS = 1e5  # in a shot
PSNR = ("estimate", "consistent")
BOUNDS = ("cramer_rao", "bayesian")
OPTICS = {
    "checkpoint": str,
    **dict.fromkeys(PSNR, float),
    **dict.fromkeys(BOUNDS, float | None),
}


def judge_optics(workdir: Path) -> dict[str, Any]:
    """Returns how well the optics of a run do without its network, in dB.

    "estimate" is the mean PSNR of the spectral estimate, "consistent" that after error reduction;
    both take the global phase from the truth. "cramer_rao" and "bayesian" are the Cramer-Rao and
    van Trees bounds (`uniqueness.masks.bounds`) as PSNR, or None where a bound is infinite.
    """
    run = load_run(workdir, images=IMAGES)
    plan = Plan(solver=(SOLVER,), steps=STEPS, images=IMAGES)
    found = solvers.summarise(solvers.solve_images(run, plan))
    subject = comparison.make_subject(run.config, {"run": workdir}, {}, random=False, scenes=SCENES)
    bound = comparison.bounds("run", subject, photons=PHOTONS)
    values = {name: bound[name]["psnr"] for name in BOUNDS}
    return {
        "checkpoint": run.digest,
        "estimate": found[START]["psnr"],
        "consistent": found[SOLVER]["psnr"],
        **comparison.as_json(values),
    }
