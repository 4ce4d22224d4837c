"""What the objects of a bench were, from all shots of each: no network, nothing learned.

Nine shots through known masks determine an object. What of the optics no calibration knows shows
in the shots of the empty beam: solved for a field of any modulus, they give amplitude and wavefront
of the light pixel by pixel, whatever made them. All that leaves its trace is told by the misfit.
"""

from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.progress import progress
from jax_kdpr.core.types import Images, Intensities
from jax_kdpr.lab.frames.measured import Measured
from jax_kdpr.lab.frames.recovery import make_recover
from jax_kdpr.recovery.projections import Settings
from jax_kdpr.recovery.refinement import Refinement
from jax_kdpr.recovery.solvers import solve
from jax_kdpr.recovery.spectral import filtered_spectral_init
from jax_kdpr.runs.run import Run

SOLVER = Refinement(60, "accelerated", 0.02)  # 41 dB from nine shots of 1e5 photons
BEAM_STEPS = 100
BATCH = 16  # objects at a time
UNEXPLAINED = 0.3  # misfit of shots that are not of one object through these masks
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
    if not median <= UNEXPLAINED:
        raise InputError(
            f"--input: no object explains its {run.snapshots} shots (median misfit {median:.2f}, "
            f"at most {UNEXPLAINED:g} expected); check that the shots of an object follow each "
            "other by name, the run's own mask first, --masks, and --calibration"
        )
    spread = 1.4826 * float(np.median(np.abs(misfit - median)))
    limit = min(UNEXPLAINED, max(median + OUTLYING * spread, 1.2 * median))
    return Objects(jnp.asarray(np.concatenate(images)), misfit, limit)


class Light(NamedTuple):
    """The light that meets the object, pixel by pixel, over that of the run's own optics."""

    amplitude: Float[np.ndarray, "h w"]
    phase: Float[np.ndarray, "h w"]  # radians
    misfit: float  # of the shots of the empty beam


def recover_light(run: Run, blank: Measured) -> Light:
    """Recovers the light from shots of the empty beam, through all masks.

    Raises:
        InputError: If no light explains them.
    """
    params, state = run.variables
    optics: Optics = run.optics
    y = jnp.asarray(blank.intensity)
    start, _ = filtered_spectral_init(
        y, optics, params["filter"], state["start"], run.config.spectral
    )
    field, misfit = solve(
        y,
        optics,
        start,
        solver="accelerated",
        steps=BEAM_STEPS,
        scene="none",
        settings=Settings(),
    )
    field, misfit = np.asarray(field), float(misfit)
    if not misfit <= UNEXPLAINED:
        raise InputError(
            f"--blank: no light explains its {run.snapshots} shots (misfit {misfit:.2f}, at most "
            f"{UNEXPLAINED:g} expected); check that they are of the empty beam, through the same "
            "masks in the same order as those of an object"
        )
    field = field * np.exp(-1j * np.angle(field.mean()))
    return Light(np.abs(field), np.angle(field), misfit)


def light_options(run: Run, light: Light, folder: Path) -> dict[str, dict[str, str | tuple]]:
    """Writes the light that a run has so, and returns the options that name it.

    Of the run's own beam and the light that was found over it, as planes in `folder`.
    """
    beam = run.camera.beam
    own = np.ones_like(light.amplitude) if beam is None else np.asarray(beam.incident())
    field = own * light.amplitude * np.exp(1j * light.phase)
    amplitude, wavefront = folder / "illumination.npy", folder / "aberrations.npy"
    np.save(amplitude, np.abs(field).astype(np.float32))
    np.save(wavefront, np.angle(field).astype(np.float32))
    return {
        "illumination": {"kind": "amplitude", "file": str(amplitude)},
        "aberrations": {"zernike": (), "file": str(wavefront)},
    }
