"""What masks and filter of a run are worth without its network."""

from pathlib import Path
from typing import Any

from jax_kdpr.evaluation import solvers
from jax_kdpr.evaluation.solvers import START, Plan
from jax_kdpr.evaluation.uniqueness import comparison
from jax_kdpr.runs.run import load_run

OPTICS_FILE = "optics.json"  # in a run folder
SOLVER, STEPS = "error_reduction", 100
IMAGES, SCENES = 128, 4  # test images: of the recoveries, of the bounds
PHOTONS = 1e5  # of a shot
PSNR = ("estimate", "consistent")
BOUNDS = ("cramer_rao", "bayesian")
OPTICS = {
    "checkpoint": str,
    **dict.fromkeys(PSNR, float),
    **dict.fromkeys(BOUNDS, float | None),
}


def judge_optics(workdir: Path) -> dict[str, Any]:
    """Returns the mean PSNR of the spectral estimate ("estimate"), and of what error reduction
    makes of it ("consistent"), global phase from the truth; and Cramer-Rao and van Trees' bounds
    (`uniqueness.masks.bounds`) as PSNR, None where there is none. All in dB.
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
