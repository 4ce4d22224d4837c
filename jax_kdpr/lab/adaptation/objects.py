"""Recovers the objects of a bench from all shots of each, without a network or any training.

Nine shots through known masks determine an object; the misfit tells which objects do not fit.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.progress import progress
from jax_kdpr.core.types import Field, Images, Intensities, Intensity, Scalar
from jax_kdpr.lab.frames.recovery import make_recover
from jax_kdpr.optics.cdp import Optics
from jax_kdpr.optics.objects import SceneOptions, image_beside, scene_field
from jax_kdpr.recovery.refinement import Refinement
from jax_kdpr.recovery.solvers import amplitude_misfit
from jax_kdpr.runs.run import Run

SOLVER = Refinement(60, "accelerated", 0.02)  # 41 dB from nine shots of 1e5 photons
BATCH = 16  # objects at a time
EXPLAINED = 0.75  # share of the misfit with the shots in another order; a badly known bench has 0.6
# A shot is of another mask if its misfit exceeds both UNLIKE times the median misfit, and FINE.
UNLIKE, FINE = 1.35, 0.1
ALIKE, AGREED = 0.7, 0.2  # least correlation of two images; least piston between them, radians
OUTLYING = 5.0  # robust standard deviations above the median misfit


class Objects(NamedTuple):
    """The objects that were recovered."""

    images: Images
    misfit: Float[np.ndarray, "n"]  # of all shots of each (`lab.frames.recovery`)
    limit: float  # misfit beyond which an object is left out

    @property
    def usable(self) -> np.ndarray:
        """Numbers of the objects that are not left out."""
        return np.flatnonzero(self.misfit <= self.limit)

    @property
    def typical(self) -> float:
        """Median misfit."""
        return float(np.median(self.misfit))


def recover_objects(run: Run, intensities: Intensities, beside: Images | None = None) -> Objects:
    """Recovers each object from all its shots.

    No shot determines the global phase. It is that of the darkest image within the phase range,
    unless most images in `beside` are like these, but differ from them by a common piston.

    Args:
        run: The run with the masks of all shots (`masks.further`), on the bench as far as it is
            known.
        intensities: CDPs [n k sh sw], in the model's unit.
        beside: What the network makes of each object, to tell the piston.

    Raises:
        InputError: If most shots are not explained by any object, or one shot of each object fits
            much worse than the others.
    """
    recover = make_recover(run.by_solver(SOLVER, starts=1))
    images, misfits = [], []
    with progress(total=len(intensities), desc="objects from all shots", unit="object") as bar:
        for first in range(0, len(intensities), BATCH):
            places = (first + np.arange(BATCH)) % len(intensities)
            kept = min(BATCH, len(intensities) - first)
            found = recover(intensities[places])
            images.append(np.asarray(found.image)[:kept])
            misfits.append(np.asarray(found.misfit, float)[:kept])
            bar.update(kept)
    recovered, misfit = jnp.asarray(np.concatenate(images)), np.concatenate(misfits)
    median = float(np.median(misfit))
    scene = run.camera.scene
    each = jax.vmap(lambda image, y: shot_misfits(scene_field(image, scene), y, run.optics))
    require_alike("--input", np.median(each(recovered[:BATCH], intensities[:BATCH]), axis=0))
    # The same shots with their masks exchanged: the misfit where no object fits.
    few = intensities[np.arange(BATCH) % min(BATCH, len(intensities))]
    wrong = float(np.median(recover(jnp.roll(few, 1, axis=1)).misfit))
    if not median <= EXPLAINED * wrong:
        raise InputError(
            f"--input: no object explains its {run.snapshots} shots: median misfit {median:.2f}, "
            f"and {wrong:.2f} through each other's masks; check that the shots of an object follow "
            "each other by name, the run's own mask first, --masks, and --calibration"
        )
    if beside is not None and scene.has_phase:
        recovered = _with_phase_of(recovered, beside, scene)
    spread = 1.4826 * float(np.median(np.abs(misfit - median)))
    limit = min(EXPLAINED * wrong, max(median + OUTLYING * spread, 1.2 * median))
    return Objects(recovered, misfit, limit)


def shot_misfits(field: Field, intensity: Intensity, optics: Optics) -> Float[Array, "k"]:
    """Returns how badly a field explains each of its shots (`amplitude_misfit`)."""

    def of_one(mask: Array, y: Array) -> Scalar:
        return amplitude_misfit(field, y[None], Optics(mask[None], optics.path))

    return jax.vmap(of_one)(optics.masks, intensity)


def require_alike(flag: str, misfits: Float[np.ndarray, "k"]) -> None:
    """Refuses shots of which some fit much worse than the others: those are of other masks.

    Raises:
        InputError: If there are such shots; the message counts them from 1.
    """
    worst = misfits > max(UNLIKE * float(np.median(misfits)), FINE)
    if worst.any():
        raise InputError(
            f"{flag}: shots {', '.join(str(k + 1) for k in np.flatnonzero(worst))} do not go with "
            f"the others (misfit {misfits.max():.2f}, others {np.median(misfits):.2f}): taken "
            "through another mask, or exchanged; check their order by name, and --masks"
        )


def _with_phase_of(images: Images, others: Images, scene: SceneOptions) -> Images:
    turned = jax.vmap(lambda image, other: image_beside(scene_field(image, scene), other, scene))(
        images, others
    )
    pistons = scene.phase_range * jnp.mean((turned - images)[..., 0], axis=(1, 2))
    alike = jax.vmap(lambda one, other: jnp.corrcoef(one.ravel(), other.ravel())[0, 1])(
        turned[..., 0], others[..., 0]
    )
    known = np.asarray(pistons)[np.asarray(alike) > ALIKE]
    if len(known) < len(images) / 2 or abs(np.median(known)) < AGREED:
        return images
    return jnp.clip(turned, 0.0, 1.0)
