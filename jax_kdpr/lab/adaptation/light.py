"""Finds out about a bench from shots of its empty beam through known masks, without any training.

These shots show what no calibration knows of the optics. Solved for a field of any modulus, they
give amplitude and wavefront of the light pixel by pixel, whatever their cause. What the modulator
does to a mask is not such a field: its numbers are those with which the light that is found
explains the shots best.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy import optimize

from jax_kdpr.config.schema import Config
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.options import changed, shallow
from jax_kdpr.core.progress import progress
from jax_kdpr.core.types import Field, Intensity, Kernel, Scalar
from jax_kdpr.lab.adaptation.objects import require_alike, shot_misfits
from jax_kdpr.lab.frames.measured import Measured, Setup, measure_frames, snapshot_energy
from jax_kdpr.lab.frames.parameters import Options
from jax_kdpr.lab.frames.reading import Frame
from jax_kdpr.optics.beam import AberrationOptions, IlluminationOptions
from jax_kdpr.optics.cdp import Optics
from jax_kdpr.recovery.solvers import solve
from jax_kdpr.recovery.spectral import SpectralOptions, filtered_spectral_init
from jax_kdpr.runs.run import Run

STEPS = 100
# Share of the misfit with the shots in another order, which light of any modulus lowers too.
EXPLAINED = 0.9
FOUND = ("illumination", "aberrations", "device")  # sections of the optics


class Searched(NamedTuple):
    """The range in which a number of the modulator is searched."""

    low: float
    high: float
    step: float  # between the first tries


OF_MODULATOR = {  # options of `device`
    "crosstalk": Searched(0.0, 2.0, 0.15),
    "gain": Searched(0.7, 1.3, 0.05),
    "zero_order": Searched(0.0, 0.3, 0.02),
}
SEARCHED = 60  # tries at most


class Light(NamedTuple):
    """The light that meets the object, pixel by pixel, relative to that of the run's own optics."""

    amplitude: Float[np.ndarray, "h w"]
    phase: Float[np.ndarray, "h w"]  # radians
    misfit: float  # of the shots of the empty beam

    def in_words(self) -> str:
        """Returns a line on the light."""
        return (
            f"--blank: over what is known, amplitude {self.amplitude.min():.2f} to "
            f"{self.amplitude.max():.2f}, wavefront {np.std(self.phase):.2f} rad rms (misfit "
            f"{self.misfit:.3f})"
        )


def recover_light(run: Run, blank: Intensity) -> Light:
    """Recovers the light from the shots [k sh sw] of the empty beam, through all masks."""
    params, state = run.variables
    field, misfit = _solve_light(
        blank, run.optics, params["filter"], state["start"], run.config.spectral
    )
    field, misfit = np.asarray(field), float(misfit)
    field = field * np.exp(-1j * np.angle(field.mean()))
    return Light(np.abs(field), _unwrapped(field), misfit)


def _unwrapped(field: np.ndarray) -> Float[np.ndarray, "h w"]:
    """Returns the phase without jumps of 2 pi, as far as it is smooth, with its mean near 0."""
    phase = np.unwrap(np.unwrap(np.angle(field), axis=0), axis=1)
    return phase - 2 * np.pi * np.round(np.mean(phase) / (2 * np.pi))


@partial(jax.jit, static_argnames="spectral")
def _solve_light(
    blank: Intensity, optics: Optics, kernel: Kernel, start: Field, spectral: SpectralOptions
) -> tuple[Field, Scalar]:
    first, _ = filtered_spectral_init(blank, optics, kernel, start, spectral)
    return solve(blank, optics, first, solver="accelerated", steps=STEPS, scene="none")


def fit_device(run: Run, blank: Intensity, names: list[str]) -> dict[str, float]:
    """Finds the numbers of the modulator with which light explains the empty beam's shots best.

    The search is that of Nelder and Mead; each try recovers the light anew.

    Args:
        run: The run with the masks of all shots, on the bench as far as it is known.
        blank: Shots of the empty beam, as in `recover_light`.
        names: Some of `OF_MODULATOR`.

    Returns:
        {name: its number}.
    """
    device, bounds = run.config.device, [OF_MODULATOR[name] for name in names]
    given = [float(getattr(device, name)) for name in names]
    # Within the range, and at least one step of the first tries away from its ends.
    start = [
        min(max(value, one.low + one.step), one.high - one.step)
        for value, one in zip(given, bounds, strict=True)
    ]
    simplex = [start] + [
        [value + (number == k) * bounds[k].step for number, value in enumerate(start)]
        for k in range(len(names))
    ]

    def misfit(values: np.ndarray) -> float:
        options = dict(zip(names, map(float, values), strict=True))
        return recover_light(run.with_optics({"device": options}), blank).misfit

    with progress(total=SEARCHED, desc=f"{', '.join(names)} of the modulator", unit="try") as bar:
        found = optimize.minimize(
            lambda values: (bar.update(), misfit(values))[1],
            start,
            method="Nelder-Mead",
            bounds=[(one.low, one.high) for one in bounds],
            options={"initial_simplex": simplex, "maxfev": SEARCHED, "xatol": 2e-3, "fatol": 1e-4},
        )
    best = given if misfit(np.asarray(given)) <= found.fun else found.x.tolist()
    return dict(zip(names, best, strict=True))


def require_explained(run: Run, blank: Intensity, light: Light) -> None:
    """Refuses light that explains the empty beam's shots hardly better than in another order.

    Raises:
        InputError: If it does, or some shots fit much worse than the others.
    """
    wrong = recover_light(run, jnp.roll(blank, 1, axis=0)).misfit
    if not light.misfit <= EXPLAINED * wrong:
        raise InputError(
            f"--blank: no light explains its {run.snapshots} shots: misfit {light.misfit:.2f}, and "
            f"{wrong:.2f} through each other's masks; check that they are of the empty beam, "
            "through the same masks in the same order as those of an object"
        )
    field = jnp.asarray(light.amplitude * np.exp(1j * light.phase), jnp.complex64)
    require_alike("--blank", np.asarray(shot_misfits(field, blank, run.optics)))


class Bench(NamedTuple):
    """What is known of a bench."""

    run: Run  # the run on this bench
    optics: Options  # those that were found; the run has them already
    setup: Setup  # with the unit of the bench's frames


def see_bench(
    run: Run,
    setup: Setup,
    blank: tuple[Frame, ...],
    *,
    all_shots: Callable[[Run], Run],
    mask_side: Callable[[Run], float],
    fit: list[str],
    folder: Path,
    begun: Config | None,
) -> Bench:
    """Finds the light, and numbers of the modulator, from shots of the empty beam.

    If the frames of objects do not all hold the same light (`Camera.knows_light`), these shots
    give the unit too.

    Args:
        run: The run on the bench, as far as a calibration knows it.
        setup: Setup of the frames.
        blank: Frames of the empty beam, one through each mask.
        all_shots: Adds the further masks to a run (`lab.masks.further`).
        mask_side: Returns the side of a run's mask pixels (`measured.pixel_side`).
        fit: Some of `OF_MODULATOR`.
        folder: Folder for the planes that the options name.
        begun: Config of an adaptation that is resumed, whose bench was found before; else None.

    Raises:
        InputError: If no light explains the shots, or a frame cannot be used.
    """

    # The beam has been measured, so training must not vary it from step to step.
    jitter = changed(run.config.jitter, beam=0.0, waist=0.0)
    run = dataclasses.replace(run, config=changed(run.config, jitter=jitter))

    def seen(optics: Options) -> tuple[Run, Measured]:
        here = run.with_optics(optics)
        many, placed = all_shots(here), setup._replace(pixel_side=mask_side(here))
        (measured,) = measure_frames([blank], placed, many)
        return many, measured

    if begun is not None:
        optics: Options = {name: shallow(getattr(begun, name)) for name in FOUND}
    else:
        optics = {}
        if fit:
            many, measured = seen(optics)
            optics = {"device": fit_device(many, jnp.asarray(measured.intensity), fit)}
            found = ", ".join(f"{name} {value:.3g}" for name, value in optics["device"].items())
            print(f"--fit: {found}")
        many, measured = seen(optics)
        shots = jnp.asarray(measured.intensity)
        light = recover_light(many, shots)
        require_explained(many, shots, light)
        print(light.in_words())
        optics |= light_options(many, light, folder)
    known = run.with_optics(optics)
    setup = setup._replace(pixel_side=mask_side(known))
    if setup.counts_per_unit is None and not known.camera.knows_light:
        many, measured = seen(optics)
        unit = sum(measured.counts) / float(snapshot_energy(many).sum())
        print(f"--blank: {unit:.5g} counts a unit; all frames must be of its exposure")
        setup = setup._replace(counts_per_unit=unit)
    return Bench(known, optics, setup)


def light_options(run: Run, light: Light, folder: Path) -> Options:
    """Writes the light of a run as planes into `folder`, and returns the options that name them.

    The planes combine the run's own beam with the light that was found relative to it.
    """
    beam = run.camera.beam
    phase, amplitude = light.phase, light.amplitude
    if beam is not None:
        phase, amplitude = phase + beam.wavefront(), amplitude * beam.amplitude()
    files = {name: folder / f"{name}.npy" for name in ("illumination", "aberrations")}
    for name, plane in zip(files, (amplitude, phase), strict=True):
        np.save(files[name], np.asarray(plane, np.float32))
    seen = IlluminationOptions(kind="amplitude", file=str(files["illumination"]))
    bent = AberrationOptions(file=str(files["aberrations"]))
    return {"illumination": shallow(seen), "aberrations": shallow(bent)}
