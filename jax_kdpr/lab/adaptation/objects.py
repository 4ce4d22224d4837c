"""What the objects of a bench were, from all shots of each: no network, nothing learned.

Nine shots through known masks determine an object. What of the optics no calibration knows shows
in the shots of the empty beam: solved for a field of any modulus, they give amplitude and wavefront
of the light pixel by pixel, whatever made them. All that leaves its trace is told by the misfit.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy import optimize

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.progress import progress
from jax_kdpr.core.types import Field, Images, Intensities, Intensity, Kernel, Scalar
from jax_kdpr.lab.frames.recovery import make_recover
from jax_kdpr.optics.cdp import Optics
from jax_kdpr.recovery.projections import Settings
from jax_kdpr.recovery.refinement import Refinement
from jax_kdpr.recovery.solvers import solve
from jax_kdpr.recovery.spectral import SpectralOptions, filtered_spectral_init
from jax_kdpr.runs.run import Run

SOLVER = Refinement(60, "accelerated", 0.02)  # 41 dB from nine shots of 1e5 photons
BEAM_STEPS = 100
BATCH = 16  # objects at a time
UNEXPLAINED = 0.45  # misfit of shots that are not of one object through these masks
OUTLYING = 5.0  # robust standard deviations above the median misfit


class Searched(NamedTuple):
    """Where a number of the modulator is looked for."""

    low: float
    high: float
    step: float  # of the first tries


FITTED = {  # options of `device`
    "crosstalk": Searched(0.0, 2.0, 0.15),
    "gain": Searched(0.7, 1.3, 0.05),
    "zero_order": Searched(0.0, 0.3, 0.02),
}
SEARCHED = 60  # tries


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


def recover_light(run: Run, blank: Intensity) -> Light:
    """Recovers the light from the shots [k sh sw] of the empty beam, through all masks.

    Raises:
        InputError: If no light explains them.
    """
    params, state = run.variables
    field, misfit = _solve_light(
        blank, run.optics, params["filter"], state["start"], run.config.spectral
    )
    field, misfit = np.asarray(field), float(misfit)
    field = field * np.exp(-1j * np.angle(field.mean()))
    return Light(np.abs(field), np.angle(field), misfit)


@partial(jax.jit, static_argnames="spectral")
def _solve_light(
    blank: Intensity, optics: Optics, kernel: Kernel, start: Field, spectral: SpectralOptions
) -> tuple[Field, Scalar]:
    first, _ = filtered_spectral_init(blank, optics, kernel, start, spectral)
    nothing_known: dict[str, Any] = {"scene": "none", "settings": Settings()}
    return solve(blank, optics, first, solver="accelerated", steps=BEAM_STEPS, **nothing_known)


def fit_device(run: Run, blank: Intensity, names: list[str]) -> dict[str, float]:
    """Finds numbers of the modulator with which the light explains the empty beam's shots best.

    Nelder and Mead's search: each place is a light recovered anew.

    Args:
        run: Of all shots, on the bench as far as it is known.
        blank: As of `recover_light`.
        names: Some of `FITTED`.

    Returns:
        {name: its number}.
    """
    device, bounds = run.config.device, [FITTED[name] for name in names]
    given = [getattr(device, name) for name in names]
    # Not at the edge of its range, where nothing changes: crosstalk of 0 has no derivative.
    start = [min(max(v, b.low + b.step), b.high) for v, b in zip(given, bounds, strict=True)]
    simplex = [start] + [
        [value + (number == k) * bounds[k].step for number, value in enumerate(start)]
        for k in range(len(names))
    ]

    def misfit(values: Sequence[float]) -> float:
        options = {name: float(value) for name, value in zip(names, values, strict=True)}
        bar.update()
        return recover_light(run.with_optics({"device": options}), blank).misfit

    with progress(total=SEARCHED, desc=f"{', '.join(names)} of the modulator", unit="try") as bar:
        found = optimize.minimize(
            misfit,
            start,
            method="Nelder-Mead",
            bounds=[(one.low, one.high) for one in bounds],
            options={"initial_simplex": simplex, "maxfev": SEARCHED, "xatol": 2e-3, "fatol": 1e-4},
        )
    return {name: float(value) for name, value in zip(names, found.x, strict=True)}


def require_explained(run: Run, light: Light) -> None:
    """Refuses light that leaves most of the shots of the empty beam unexplained.

    Raises:
        InputError: What to look at.
    """
    if not light.misfit <= UNEXPLAINED:
        raise InputError(
            f"--blank: no light explains its {run.snapshots} shots (misfit {light.misfit:.2f}, at "
            f"most {UNEXPLAINED:g} expected); check that they are of the empty beam, through the "
            "same masks in the same order as those of an object"
        )


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
