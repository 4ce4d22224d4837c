"""What `import jax_kdpr` gives: systems, trained or not, and trainings, a call each."""

import dataclasses
import json
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Complex, Float
from numpy.typing import ArrayLike

from jax_kdpr.config import checks
from jax_kdpr.config.schema import Config, DistillOptions, LossOptions
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import require
from jax_kdpr.core.options import shallow
from jax_kdpr.core.registry import allow
from jax_kdpr.data.batches import over_batches
from jax_kdpr.evaluation.scoring import score_run
from jax_kdpr.interface.solving import GAINS, shots_of
from jax_kdpr.lab import bench_options
from jax_kdpr.lab.bench_file import read_bench
from jax_kdpr.lab.frames.calibration import calibration_notes, read_calibration
from jax_kdpr.lab.frames.correction import References, correct, make_correction
from jax_kdpr.lab.frames.geometry import check_geometry, make_window
from jax_kdpr.lab.frames.measured import (
    Setup,
    in_model_units,
    on_grid,
    pixel_side,
    snapshot_energy,
)
from jax_kdpr.lab.frames.parameters import Options
from jax_kdpr.lab.frames.recovery import Recover, Recovered, make_recover
from jax_kdpr.optics.camera import uncentred
from jax_kdpr.optics.mask_files.reading import read_phases
from jax_kdpr.optics.objects import scene_parts
from jax_kdpr.recovery.refinement import NO_REFINEMENT, Refinement
from jax_kdpr.recovery.solver_system import ALONE, STARTS
from jax_kdpr.runs import checkpoint, folder
from jax_kdpr.runs import pretrained as trained
from jax_kdpr.runs import run as runs
from jax_kdpr.training import loop


class Objects(NamedTuple):
    """Objects that a trained system has recovered from frames, as NumPy arrays."""

    image: Float[np.ndarray, "n h w c"]  # as the network gives it, in [0, 1]
    phase: Float[np.ndarray, "n h w"]  # radians; 0 of amplitude scenes
    amplitude: Float[np.ndarray, "n h w"]  # in [0, 1]; 1 of phase scenes
    estimate: Complex[np.ndarray, "n h w"]  # spectral, as the network saw it
    misfit: Float[np.ndarray, "n"]  # of the network's image, `frames.recovery`
    centred: bool  # whether the frames had their zero frequency in the middle

    def __repr__(self) -> str:
        count, height, width = self.phase.shape
        return (
            f"<{count} object(s) of {height} x {width}, misfit {self.misfit.min():.3f} to "
            f"{self.misfit.max():.3f}: image, phase, amplitude, estimate, misfit>"
        )


class Run(runs.Run):
    """A trained system, restored by `load`, or one without a network, made by `bench`."""

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
        in_range = given.dtype.kind in "uifb" and np.all((given >= 0) & (given <= 1))
        if scenes.ndim != 4 or scenes.shape[1:] != wanted or not in_range:
            raise InputError(
                f"images: expected [n {wanted[0]} {wanted[1]} {wanted[2]}] in [0, 1], got "
                f"{list(given.shape)} from {given.min(initial=0)} to {given.max(initial=0)}; "
                "resize and scale them"
            )
        scenes = jnp.asarray(scenes, jnp.float32)
        return np.asarray(self._measure(self.variables[0], scenes, jax.random.key(seed)))

    def reconstruct(
        self,
        frames: ArrayLike,
        *,
        calibration: str | Path = "",
        square_pixels: bool = True,
        dark: ArrayLike | None = None,
        flat: ArrayLike | None = None,
        bad_pixels: ArrayLike | None = None,
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
                camera, how large and which way. What speaks against it is a Python warning.
            square_pixels: Whether what square mask pixels take from the edge of a camera's pattern
                is divided out, in the far field; not for a mask finer than the model's.
            dark: [y x], a frame without light, or several [n y x]; their mean is taken away.
            flat: Likewise of even light; divided out.
            bad_pixels: [y x], not 0 where a pixel is to be replaced by its neighbours.
            gain: Counts of a model sample whose CDP is 1, which objects with an amplitude need
                where there is no calibration. None scales each frame of a phase object to the light
                that such objects let through, whatever the exposure.
            centred: Whether the zero frequency of frames on the model's grid lies in the middle,
                not at [0, 0]; None tries both, and keeps what explains the frames better. A
                camera's frames have it where the calibration says.
            refinement: Steps of a solver from the network's image.

        Raises:
            InputError: If the frames cannot be the run's.
        """
        shots = shots_of(frames, self.snapshots)
        shape = shots.shape[2:]
        found = read_calibration(Path(calibration)) if calibration else None
        if found is None and shape != self.sensor:
            raise InputError(
                f"frames: expected {self.sensor[0]} x {self.sensor[1]} pixels, the model's grid, "
                f"or a calibration= with which to find it, got {shape[0]} x {shape[1]}"
            )
        if found is not None and centred is not None:
            raise InputError("centred: nothing reads it beside calibration=; leave it out")
        if gain is not None:
            require("gain", gain, GAINS)
        run = self._at(found.optics) if found is not None and found.optics else self
        references = References(shape, _mean(dark), _mean(flat), _mean(bad_pixels))
        correction = make_correction(references)
        light = np.stack([correct(one, correction) for one in shots.reshape(-1, *shape)])
        if found is None:
            ways = {True: uncentred(light, self.camera.axis), False: light}
            ways = ways if centred is None else {centred: ways[centred]}
        else:
            for note in calibration_notes(found, self, str(calibration)):
                warnings.warn(note, stacklevel=2)
            check_geometry(found.geometry, shape, self.sensor)
            window, side = make_window(shape, None, 1), pixel_side(run) if square_pixels else 0.0
            setup = Setup(references, window, found.geometry, pixel_side=side, offset=found.offset)
            ways = {True: np.stack([on_grid(one, setup, run) for one in light])}
            if gain is None and not run.camera.knows_light:
                gain = found.counts_per_unit
        if gain is None and not run.camera.knows_light:
            raise InputError(
                f"gain: how much light of {self.camera.scene.kind} objects this camera sees is not "
                "known; give the counts of a model sample whose CDP is 1 (1.0 for what `measure` "
                "returns), or a calibration="
            )

        def recover(light: Float[np.ndarray, "frames sh sw"]) -> Recovered:
            objects = light.reshape(-1, self.snapshots, *self.sensor)
            cdps = [in_model_units(one, run._energies, gain, name="frames") for one in objects]
            seen = jnp.asarray(np.stack(cdps), jnp.float32)
            if len(seen) <= self.batch_size:
                return run._recover(refinement)(seen)
            return over_batches(
                lambda indices, _: run._recover(refinement)(seen[indices]),
                len(seen),
                batch_size=self.batch_size,
                key=jax.random.key(0),  # of no use: nothing is drawn
            )

        tried = {way: recover(seen) for way, seen in ways.items()}
        best = min(tried, key=lambda way: float(np.median(tried[way].misfit)))
        image, estimate, misfit = (np.asarray(part) for part in tried[best][:3])
        parts = scene_parts(image, self.camera.scene)
        plain = np.ones(image.shape[:3], np.float32)
        phase, amplitude = parts.get("phase", 0 * plain), parts.get("amplitude", plain)
        return Objects(image, phase, amplitude, estimate, misfit, best)

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
            InputError: If its data have changed, or are not there, or it is not trained.
        """
        if not self.is_trained:
            raise InputError("evaluate: scores a network, these are optics without one; load a run")
        scored = score_run(
            self.workdir,
            output=None if output is None else Path(output),
            refinement=refinement,
            data_dir=self.data_dir,
        )
        return scored.result["scores"]

    # What is made or compiled once: a frame then costs what a frame costs.

    def _at(self, optics: Options) -> "Run":
        known = json.dumps(optics, sort_keys=True)
        if known not in self._benches:
            self._benches[known] = cast(Run, self.with_optics(optics))
        return self._benches[known]

    @cached_property
    def _benches(self) -> dict[str, "Run"]:
        return {}

    @cached_property
    def _energies(self) -> Float[np.ndarray, "L"]:
        return snapshot_energy(self)

    @cached_property
    def _measure(self) -> Callable[..., jax.Array]:
        return jax.jit(self.system.measure)

    @cached_property
    def _recover(self) -> Callable[[Refinement], Recover]:
        return cache(lambda refinement: make_recover(self, refinement=refinement))


def load(
    workdir: str | Path, *, data_dir: str | Path = "", allow_code: str | Sequence[str] = ()
) -> Run:
    """Restores the trained system of a run folder: its best checkpoint.

    Args:
        workdir: Run folder of a training.
        data_dir: Where its data lie now; empty for where they were when it was trained.
        allow_code: Packages of yours, or that you trust, whose code run folders may name, and so
            run, for the rest of this process.

    Raises:
        InputError: If it is no run, names code that is not allowed, or has no checkpoint that can
            be read.
    """
    checkpoint.quiet_logs()
    allow(allow_code)
    folder_of_run = Path(workdir).expanduser().resolve()
    run = runs.load_run(folder_of_run, data_dir=str(data_dir)).on_one_device()
    return Run(**shallow(run))


def pretrained(name: str) -> Run:
    """Restores a system that came with the package, such as "bench-32".

    docs/start/pretrained.md says which there are. Its run folder is made in the user's cache;
    `run.workdir` says where.

    Raises:
        InputError: If there is no system of that name.
    """
    return load(trained.workdir(name))


def bench(
    masks: str | Path | ArrayLike,
    config: Config | None = None,
    *,
    solver: Refinement = ALONE,
    starts: int = STARTS,
) -> Run:
    """Puts masks that exist before a camera: a `Run` without a network, recovered by a solver.

    Args:
        masks: A mask file, by its sidecar where it has one; else, and as an array, phases phi in
            radians, [h w] or one a shot [L h w]. A mask multiplies the light by e^{-j phi}.
        config: What else the bench is (scenes, device, beam, camera, noise); default: a plain one.
            Its `data.size` and `masks.snapshots` are those of the masks.
        solver: That recovers; default: 500 accelerated steps, total variation 0.02.
        starts: Spectral estimates that it begins at; the answer that fits a frame best counts.

    Raises:
        InputError: If the masks are none, a file of the config cannot be used, or the solver not
            with these optics.
    """
    is_file = isinstance(masks, str | Path)
    given = read_phases("masks", str(masks)) if is_file else np.asarray(masks)
    phases = given[None] if given.ndim == 2 else given
    is_square = phases.ndim == 3 and phases.shape[1] == phases.shape[2] and phases.size
    if not is_square or phases.dtype.kind not in "uif" or not np.all(np.isfinite(phases)):
        raise InputError(
            f"masks: expected finite phases in radians, square ones [L h h], got {phases.dtype} "
            f"{list(phases.shape)}"
        )
    config = deepcopy(config) if config is not None else Config()
    config.data.size, config.masks.snapshots = phases.shape[1], len(phases)
    config.masks.start, config.masks.file = "random", ""  # not those of another file
    config.regime, config.loss, config.distill = "e2e", LossOptions(), DistillOptions()
    config = checks.ready(config)
    run = runs.untrained(config, solver=solver, starts=starts).on_one_device()
    params, state = run.variables
    params = {**params, "phases": jnp.asarray(phases, jnp.float32)}
    return Run(**shallow(dataclasses.replace(run, variables=(params, state))))


def on_bench(config: Config, bench: str | Path) -> Config:
    """Returns a config with what a bench.toml says, as `train --bench` does.

    A line says which options that are: of the modulator, the camera and its light, and lengths of
    a near field. What cannot be set is a Python warning.

    Args:
        config: Any; it is not changed. What you set in the result goes before the bench.
        bench: The file (docs/guides/devices.md).

    Raises:
        InputError: If the file, or the measured table that it names, cannot be read.
    """
    found, options, notes = bench_options.on_bench(config, read_bench(Path(bench).expanduser()))
    print(f"{bench}: {bench_options.as_flags(options)}")
    for note in notes:
        warnings.warn(f"{bench}: {note}", stacklevel=2)
    return found


def train(
    config: Config, workdir: str | Path, *, allow_code: str | Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Trains, or resumes, a run; prints what it does, epoch by epoch.

    Args:
        config: Of `jax_kdpr.Config`, or from `jax_kdpr.presets`.
        workdir: Run folder: new, or that of this very run.
        allow_code: As of `load`, for a teacher's folder; what the config itself names may run.

    Returns:
        The rows of its metrics.jsonl, one for each epoch; "validation_..." of those that were
        validated (`train.validate_every`), the last among them.

    Interrupted (a notebook's stop button), it loses the epoch under way; called again it goes on.
    JAX is used as it is set up: `python -m jax_kdpr.train` also spreads batches over a CPU's cores,
    keeps compiled programs on disk, and saves on Ctrl-C within an epoch.

    Raises:
        InputError: If config, data, teacher or folder do not fit.
        StoppedError: If the loss is no longer finite, or a checkpoint cannot be written.
    """
    checkpoint.quiet_logs()
    allow(allow_code)
    place = Path(workdir).expanduser()
    loop.train(checks.ready(config), place)
    return folder.read_metrics(place)


def _mean(given: ArrayLike | None) -> np.ndarray | None:
    """One frame, of one or several."""
    if given is None:
        return None
    frames = np.asarray(given)
    return frames.mean(axis=0) if frames.ndim == 3 else frames
