"""What `import jax_kdpr` gives: trained systems, trainings and solvers, each in one call."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Complex, Float
from numpy.typing import ArrayLike

from jax_kdpr.config import checks
from jax_kdpr.config.schema import Config
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import shown
from jax_kdpr.core.options import shallow
from jax_kdpr.data.batches import take_batch
from jax_kdpr.evaluation.scoring import score_run
from jax_kdpr.lab.frames.calibration import check_grid, read_calibration
from jax_kdpr.lab.frames.correction import correct, make_correction
from jax_kdpr.lab.frames.geometry import check_geometry, make_window
from jax_kdpr.lab.frames.loaded import pixel_side, snapshot_energy
from jax_kdpr.lab.frames.measured import Setup, on_grid
from jax_kdpr.lab.frames.recovery import make_recover
from jax_kdpr.optics.objects import scene_parts
from jax_kdpr.recovery.refinement import NO_REFINEMENT, Refinement
from jax_kdpr.recovery.solvers import solve as solve_one
from jax_kdpr.recovery.spectral import filtered_spectral_init, gaussian_kernel
from jax_kdpr.runs import folder
from jax_kdpr.runs import run as runs
from jax_kdpr.training import loop

ITERATIONS = 100  # of the power iteration that a solver starts from


class Objects(NamedTuple):
    """Objects that a trained system has recovered from frames, as NumPy arrays."""

    image: Float[np.ndarray, "n h w c"]  # in [0, 1]; c = 2 (phase, amplitude) of complex scenes
    phase: Float[np.ndarray, "n h w"]  # radians; 0 of amplitude scenes
    estimate: Complex[np.ndarray, "n h w"]  # spectral, as the network saw it
    misfit: Float[np.ndarray, "n"]  # of the network's image, `frames.recovery`
    centred: bool  # whether the frames had their zero frequency in the middle


class Run(runs.Run):
    """A trained system, restored by `load`."""

    def scenes(self, count: int) -> Float[np.ndarray, "n h w c"]:
        """Returns its first test images as the system sees them, in [0, 1]; raises as `dataset`."""
        indices = jnp.arange(min(count, len(self.dataset.test)))
        size, channels = self.camera.size, self.camera.channels
        return np.asarray(take_batch(self.dataset.test, indices, size=size, channels=channels))

    def measure(self, images: ArrayLike, *, seed: int = 0) -> Float[np.ndarray, "n L sh sw"]:
        """Returns the CDPs of images as the run's own camera takes them, noise included.

        Args:
            images: [n h w], or of complex scenes [n h w 2], in [0, 1], of the run's size.
            seed: Of noise and errors of the bench.

        Returns:
            In the model's unit, zero frequency at [0, 0] (far field).

        Raises:
            InputError: If they are no images of the run's scenes.
        """
        wanted = (self.camera.size, self.camera.size, self.camera.channels)
        given = np.asarray(images)
        scenes = given[..., None] if given.ndim == 3 and wanted[2] == 1 else given
        if scenes.ndim != 4 or scenes.shape[1:] != wanted or not _within(scenes, 0.0, 1.0):
            raise InputError(
                f"images: expected [n {wanted[0]} {wanted[1]} {wanted[2]}] in [0, 1], got "
                f"{list(given.shape)} from {given.min(initial=0)} to {given.max(initial=0)}"
            )
        measured = jax.jit(self.system.measure)(
            self.variables[0], jnp.asarray(scenes, jnp.float32), jax.random.key(seed)
        )
        return np.asarray(measured)

    def reconstruct(
        self,
        frames: ArrayLike,
        *,
        calibration: str | Path = "",
        dark: ArrayLike | None = None,
        flat: ArrayLike | None = None,
        gain: float | None = None,
        centred: bool | None = None,
        refinement: Refinement = NO_REFINEMENT,
    ) -> Objects:
        """Recovers the objects that camera frames show.

        Args:
            frames: Counts of any type: [y x] of one object, [n y x], or [n L y x]. Of a run of L
                shots, L frames that follow each other are of one object. On the model's own grid,
                or of a camera, with `calibration`.
            calibration: File of `python -m jax_kdpr.calibrate`: where the pattern lies on the
                camera, how large and which way.
            dark: [y x], a frame without light; taken away.
            flat: [y x], a frame of even light; divided out.
            gain: Counts of a model pixel whose CDP is 1, which objects with an amplitude need where
                there is no calibration. Of phase objects each frame's light is known.
            centred: Whether the zero frequency of frames on the model's grid lies in the middle,
                not at [0, 0]; None tries both, and keeps what explains the frames better.
            refinement: Steps of a solver from the network's image.

        Raises:
            InputError: If the frames cannot be the run's.
        """
        shots = _shots(frames, self.snapshots)
        shape = shots.shape[2:]
        found = read_calibration(Path(calibration)) if calibration else None
        if found is None and shape != self.sensor:
            raise InputError(
                f"frames: expected {self.sensor[0]} x {self.sensor[1]} pixels, the model's grid, "
                f"or a calibration= with which to find it, got {shape[0]} x {shape[1]}"
            )
        dark, flat = (None if one is None else np.asarray(one) for one in (dark, flat))
        correction = make_correction(shape, dark=dark, flat=flat)
        light = np.stack([correct(one, correction) for one in shots.reshape(-1, *shape)])
        if found is None:
            middle = [at - n // 2 for at, n in zip(self.camera.axis, shape, strict=True)]
            ways = {way: np.roll(light, middle, (1, 2)) if way else light for way in (True, False)}
            ways = ways if centred is None else {centred: ways[centred]}
        else:
            check_grid(found, self.sensor)
            check_geometry(found.geometry, shape, self.sensor, flags="calibration")
            window, side = make_window(shape, None, 1), pixel_side(self)
            setup = Setup(correction, window, found.geometry, "points", side, None)
            ways = {True: np.stack([on_grid(one, setup, self) for one in light])}
            gain = gain or found.counts_per_unit
        recover = make_recover(self, refinement=refinement)
        cdps = {way: self._in_model_units(seen, gain) for way, seen in ways.items()}
        tried = {way: recover(jnp.asarray(one)) for way, one in cdps.items()}
        best = min(tried, key=lambda way: float(jnp.median(tried[way].misfit)))
        image, estimate, misfit = (np.asarray(part) for part in tried[best][:3])
        parts = scene_parts(image, **self.camera.scene)
        phase = parts.get("phase", np.zeros(image.shape[:3], np.float32))
        return Objects(image, phase, estimate, misfit, best)

    def evaluate(
        self, *, output: str | Path | None = None, refinement: Refinement = NO_REFINEMENT
    ) -> dict[str, dict[str, float]]:
        """Scores it on its test images, and writes what `python -m jax_kdpr.evaluate` does.

        Args:
            output: A folder for the files; None for the run folder.
            refinement: Of the network's images, which are then scored too.

        Returns:
            Of each answer ("recovered", "spectral", trivial ones, ...) mean PSNR in dB, SSIM, rms
            over the object in radians, and their standard errors.

        Raises:
            InputError: If its data have changed, or are not there.
        """
        scored = score_run(
            self.workdir,
            output=None if output is None else Path(output),
            refinement=refinement,
            data_dir=self.data_dir,
        )
        return scored.result["scores"]

    def _in_model_units(
        self, light: Float[np.ndarray, "frames sh sw"], gain: float | None
    ) -> Float[np.ndarray, "n L sh sw"]:
        """CDPs of counts on the model's grid (`frames.measured` has the unit)."""
        cdps = light.reshape(-1, self.snapshots, *self.sensor)
        if self.camera.scene["kind"] == "phase":
            sums = cdps.sum(axis=(2, 3), keepdims=True)
            if not np.all(sums > 0):
                raise InputError("frames: one of them holds no light over the dark")
            cdps = cdps * snapshot_energy(self)[:, None, None] / sums
        elif gain is None:
            raise InputError(
                f"gain: how much light {self.camera.scene['kind']} objects let through is not "
                "known; give the counts of a model pixel whose CDP is 1, or a calibration="
            )
        else:
            cdps = cdps / gain
        return cdps.astype(np.float32)


def load(workdir: str | Path, *, data_dir: str | Path = "") -> Run:
    """Restores the trained system of a run folder: its best checkpoint.

    Args:
        workdir: Run folder of a training.
        data_dir: Where its data lie now; empty for where they were when it was trained.

    Raises:
        InputError: If it is no run, or has no checkpoint that can be read.
    """
    run = runs.load_run(Path(workdir), data_dir=str(data_dir)).on_one_device()
    return Run(**shallow(run))


def train(config: Config, workdir: str | Path) -> list[dict[str, Any]]:
    """Trains, or resumes, a run; prints what it does, epoch by epoch.

    Args:
        config: Of `jax_kdpr.Config`, or from `jax_kdpr.presets`.
        workdir: Run folder: new, or that of this very run.

    Returns:
        The rows of its metrics.jsonl, one for each epoch.

    Raises:
        InputError: If config, data, teacher or folder do not fit.
    """
    loop.train(checks.ready(config), Path(workdir))
    return folder.read_metrics(Path(workdir))


def solve(
    frames: ArrayLike,
    phases: ArrayLike,
    *,
    solver: str = "raar",
    steps: int = 200,
    scene: str = "phase",
    centred: bool = False,
    **options: Any,
) -> tuple[Complex[np.ndarray, "n h w"], Float[np.ndarray, "n"]]:
    """Recovers objects by a classical solver, from the spectral estimate; no network.

    Args:
        frames: CDPs through these masks, [sh sw], [n sh sw] or [n L sh sw], in the far field.
        phases: [L h w] of the masks, radians; mask l multiplies the field by e^{-j phase}.
        solver: One of `recovery.solvers.SOLVERS`.
        steps: Its steps.
        scene: What is known of the object: "phase" (each frame is then scaled to a modulus of 1),
            "amplitude", "complex" or "none".
        centred: Whether the zero frequency of the frames lies in the middle, not at [0, 0].
        options: More of `recovery.solvers.solve`.

    Returns:
        The fields, of arbitrary global phase, and their relative residuals.

    Raises:
        InputError: If the frames are not numbers, or not as many as the masks ask for.
        ValueError: If their shapes do not fit the masks, or a name is unknown.
    """
    masks = jnp.asarray(phases, jnp.float32)
    light = _shots(frames, len(masks))
    if centred:
        light = np.fft.ifftshift(light, axes=(2, 3))
    if scene == "phase":
        light = light / light.sum(axis=(2, 3), keepdims=True) * masks[0].size
    size = masks.shape[1:]
    start = jax.random.normal(jax.random.key(0), size, jnp.complex64)

    @jax.jit
    @jax.vmap
    def run(y):
        first, _ = filtered_spectral_init(
            y, masks, jnp.asarray(gaussian_kernel()), start, iterations=ITERATIONS
        )
        return solve_one(y, masks, first, solver=solver, steps=steps, scene=scene, **options)

    fields, residuals = run(jnp.asarray(light, jnp.float32))
    return np.asarray(fields), np.asarray(residuals)


def _shots(frames: ArrayLike, snapshots: int) -> Float[np.ndarray, "n L y x"]:
    """Frames as numbers, the L of an object together."""
    given = np.asarray(frames)
    if given.dtype.kind not in "uif" or given.ndim not in (2, 3, 4) or not given.size:
        raise InputError(
            f"frames: expected counts [y x], [n y x] or [n L y x], got {given.dtype} "
            f"{list(given.shape)}"
        )
    if not np.all(np.isfinite(given)):
        raise InputError("frames: expected finite counts, some are not")
    flat = given.reshape(-1, *given.shape[-2:]).astype(np.float64)
    if len(flat) % snapshots or (given.ndim == 4 and given.shape[1] != snapshots):
        raise InputError(
            f"frames: expected {snapshots} of each object, one through each mask, got "
            f"{shown(list(given.shape[:-2]))}"
        )
    return flat.reshape(-1, snapshots, *given.shape[-2:])


def _within(values: np.ndarray, low: float, high: float) -> bool:
    return values.dtype.kind in "uifb" and bool(np.all((values >= low) & (values <= high)))
