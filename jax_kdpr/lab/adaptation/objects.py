"""What the objects of a bench were, from all shots of each: no network, nothing learned.

Nine shots through known masks determine an object; its misfit tells what does not fit.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.progress import progress
from jax_kdpr.core.types import Images, Intensities
from jax_kdpr.lab.frames.recovery import make_recover
from jax_kdpr.recovery.refinement import Refinement
from jax_kdpr.runs.run import Run

SOLVER = Refinement(60, "accelerated", 0.02)  # 41 dB from nine shots of 1e5 photons
BATCH = 16  # objects at a time
EXPLAINED = 0.75  # of the misfit of shots in another order; a bench known badly has 0.6 of it
OUTLYING = 5.0  # robust standard deviations above the median misfit


class Objects(NamedTuple):
    """What was recovered."""

    images: Images
    misfit: Float[np.ndarray, "n"]  # of all shots of each (`lab.frames.recovery`)
    limit: float  # of the misfit, beyond which one is left out

    @property
    def usable(self) -> np.ndarray:
        """Numbers of those that are not left out."""
        return np.flatnonzero(self.misfit <= self.limit)


def recover_objects(run: Run, intensities: Intensities) -> Objects:
    """Recovers each object from all its shots.

    Args:
        run: Of so many shots (`masks.further`), on the bench as far as it is known.
        intensities: [n k sh sw], in the model's unit.

    Raises:
        InputError: If most of them are not explained by any object.
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
    misfit = np.concatenate(misfits)
    median = float(np.median(misfit))
    # The same shots as if they had been taken through each other's masks: what fits no object.
    few = jnp.roll(intensities[:BATCH], 1, axis=1)[np.arange(BATCH) % len(intensities[:BATCH])]
    wrong = float(np.median(recover(few).misfit))
    if not median <= EXPLAINED * wrong:
        raise InputError(
            f"--input: no object explains its {run.snapshots} shots: median misfit {median:.2f}, "
            f"and {wrong:.2f} through each other's masks; check that the shots of an object follow "
            "each other by name, the run's own mask first, --masks, and --calibration"
        )
    spread = 1.4826 * float(np.median(np.abs(misfit - median)))
    limit = min(EXPLAINED * wrong, max(median + OUTLYING * spread, 1.2 * median))
    return Objects(jnp.asarray(np.concatenate(images)), misfit, limit)
