"""The tables of `jax_kdpr.ambiguity`."""

import math
from typing import Any

from jax_kdpr.core.tables import markdown_table
from jax_kdpr.evaluation.plots import Line
from jax_kdpr.evaluation.uniqueness import masks as mask_analysis

# {column: (key of the result, format)}, for false objects and for Jacobians.
FALSE = {
    "misfit": ("misfit", ".1e"),
    "off the constraint": ("constraint", ".1e"),
    "off the training images": ("prior_distance", ".1f"),
    "PSNR (dB)": ("psnr", ".1f"),
    "shifts that fit": ("fitting_share", ".0%"),
}
JACOBIAN = {
    "largest": ("largest", ".3g"),
    "smallest": ("smallest", ".3g"),
    "condition": ("condition", ".3g"),
    f"below {mask_analysis.NULL:g}": ("null", "g"),
    f"below {mask_analysis.WEAK:g}": ("weak", "g"),
}
BOUNDS = {"cramer_rao": "no prior", "bayesian": "prior"}


def report(results: dict[str, dict[str, Any]], *, scenes: int, finished: bool = True) -> str:
    """Lays out three tables of what `comparison.analyse` has given so far for each design.

    The numbers are medians over `scenes` scenes.
    """
    false, jacobian, bounds = [], [], []
    most = max(len(found["bounds"]) for found in results.values())
    for name, found in results.items():
        for kind, judged in found["false_objects"].items():
            false.append([name, kind, *(_cell(judged, *column) for column in FALSE.values())])
        values = [_cell(found.get("jacobian", {}), *column) for column in JACOBIAN.values()]
        jacobian.append([name, found["snapshots"], found["oversample"], *values])
        for kind, label in BOUNDS.items():
            errors = [_error(bound[kind]) for bound in found["bounds"]]
            bounds.append([name, label, *errors, *[""] * (most - len(errors))])
    levels = [f"{bound['photons']:g}" for bound in next(iter(results.values()))["bounds"]]
    probed = any("probe_error" in b["bayesian"] for f in results.values() for b in f["bounds"])
    estimated = (
        f" Estimated from {mask_analysis.PROBES} random vectors and conjugate gradients, which can "
        "leave a bound too low."
    )
    parts = [
        "# Masks compared without a network",
        f"Medians over {scenes} test scene(s)." + (" Not finished yet." * (not finished)),
        "## False objects",
        markdown_table(["masks", "false object", *FALSE], false),
        "Misfit: norm(|Ax'| - |Ax|) / norm(|Ax|); about 1e-16 where no noiseless measurement "
        "tells the false object from the true one. Off the constraint: how far it is from any "
        "object of this kind, relative. Off the training images: distance of its image, at "
        "the global phase that suits it best, to the subspace that holds 99 % of their "
        "variance; 1 is the median distance of the true scenes. PSNR: of its image against "
        "the true one. Worst shift: of those with a misfit below "
        f"{mask_analysis.FITS:g} the one nearest to the training images, or else the one that "
        "fits best.",
        "## Jacobian of sqrt(y) by the image",
        markdown_table(["masks", "L", "oversample", *JACOBIAN], jacobian),
        "Singular values without the global phase, and how many are below these shares of the "
        "largest; beyond 2,048 unknowns they are not counted.",
        "## Least error against photons a shot",
        markdown_table(["masks", "bound", *levels], bounds),
        "As PSNR of the image (none: below 0 dB) and, of phases, rms in radians; the global "
        "phase is given. No prior: Cramer-Rao bound of unbiased estimates. Prior: van Trees' "
        "bound for Gaussian objects of the training images' mean and covariance. Both are "
        "local: they know nothing of the false objects above." + estimated * probed,
    ]
    return "\n\n".join(parts)


def bound_curves(results: dict[str, dict[str, Any]]) -> dict[str, dict[str, Line]]:
    """Returns the bounds as panels of curves, {x label: {design: PSNR over photons}}."""
    return {
        f"photons a shot, {label}": {
            name: Line(
                [bound["photons"] for bound in found["bounds"]],
                [bound[kind]["psnr"] for bound in found["bounds"]],
            )
            for name, found in results.items()
        }
        for kind, label in BOUNDS.items()
    }


def _cell(found: dict[str, Any], key: str, form: str) -> str:
    return format(found[key], form) if key in found else ""


def _error(bound: dict[str, float]) -> str:
    if not math.isfinite(bound["rms"]):
        return "singular"
    radians = f" / {bound['radians']:.2g}" if "radians" in bound else ""
    psnr = f"{bound['psnr']:.1f}" if bound["psnr"] > 0 else "none"
    return f"{psnr}{radians}"
