"""Defines `Run`, a system in a user's hands: it measures, reconstructs and scores."""

import dataclasses
import json
import warnings
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Complex, Float
from numpy.typing import ArrayLike

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import Range, require, require_whole
from jax_kdpr.data.batches import over_batches
from jax_kdpr.evaluation.scoring import score_run
from jax_kdpr.interface.solving import GAINS, shots_of
from jax_kdpr.lab.frames.calibration import (
    Calibration,
    Reading,
    calibration_notes,
    read_calibration,
)
from jax_kdpr.lab.frames.correction import References, correct, make_correction
from jax_kdpr.lab.frames.geometry import check_geometry, make_window
from jax_kdpr.lab.frames.measured import (
    Setup,
    coarseness,
    in_model_units,
    on_grid,
    pixel_side,
    snapshot_energy,
)
from jax_kdpr.lab.frames.own_images import own_images
from jax_kdpr.lab.frames.recovery import (
    LIMIT_IMAGES,
    SOLVED,
    Recover,
    Recovered,
    make_recover,
    misfit_limit,
    simulated_misfits,
)
from jax_kdpr.optics.camera import uncentred
from jax_kdpr.optics.objects import scene_parts
from jax_kdpr.recovery.refinement import NO_REFINEMENT, Refinement
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs import run as runs

ROUNDED = 1e-3  # by which an image may leave [0, 1]


class Objects(NamedTuple):
    """Objects that a trained system has recovered from frames, as NumPy arrays."""

    image: Float[np.ndarray, "n h w c"]  # in [0, 1]; refined, if asked for
    phase: Float[np.ndarray, "n h w"]  # radians; 0 of amplitude scenes
    amplitude: Float[np.ndarray, "n h w"]  # in [0, 1]; 1 of phase scenes
    estimate: Complex[np.ndarray, "n h w"]  # spectral, as the network saw it
    misfit: Float[np.ndarray, "n"]  # of the network's image, `frames.recovery`
    refined_misfit: Float[np.ndarray, "n"]  # of `image`; equal to `misfit` without refinement
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
            images: Images [n h w], or [n h w 2] of complex scenes, in [0, 1], of the run's size.
            seed: Seed of the noise and of the errors of the bench.

        Returns:
            CDPs in the model's unit, with the zero frequency at [0, 0] (far field).

        Raises:
            InputError: If they are not images of the run's scenes.
        """
        wanted = (self.camera.size, self.camera.size, self.camera.channels)
        given = np.asarray(images)
        scenes = given[..., None] if given.ndim == 3 and wanted[2] == 1 else given
        if not _are_images(scenes, wanted):
            raise InputError(
                f"images: expected [n {wanted[0]} {wanted[1]} {wanted[2]}] in [0, 1], got "
                f"{_described(given)}; resize and scale them"
            )
        scenes = jnp.asarray(scenes, jnp.float32)
        return np.asarray(self._measure(self.variables[0], scenes, jax.random.key(seed)))

    @property
    def history(self) -> list[dict[str, Any]]:
        """Its rows of metrics.jsonl, one for each epoch, as `train` returns them."""
        return run_folder.read_metrics(self.workdir) if self.is_trained else []

    def read_images(self, path: str | Path) -> Float[np.ndarray, "n h w c"]:
        """Reads images of objects as its own data were read, for `measure` or as a truth.

        They get the size, the unit, the fit and the offset of the run's data, but are not rescaled.
        Of complex scenes phase and amplitude take turns.

        Args:
            path: Folder or file, as of `data.dir`.

        Returns:
            Images in [0, 1].

        Raises:
            InputError: If they cannot be read, or are no scenes of this run.
        """
        source = Path(path).expanduser()
        return np.asarray(own_images(self, source, flag="path", as_trained=True))

    def score(self, images: ArrayLike, truth: ArrayLike) -> dict[str, Float[np.ndarray, "n"]]:
        """Compares recovered images with the true ones, [n h w c], or [n h w] if c is 1, in [0, 1].

        Returns:
            For each image `psnr` in dB, `ssim`, and `rms`, the root mean square error over the
            object: of a phase in radians with the piston removed, else a share of full scale.

        Raises:
            InputError: If they are not of the run's shape, or not as many.
        """
        found, true = (np.asarray(given) for given in (images, truth))
        if self.camera.channels == 1:  # may be left out, as for `measure`
            found, true = (one[..., None] if one.ndim == 3 else one for one in (found, true))
        wanted = (self.camera.size, self.camera.size, self.camera.channels)
        valid = found.shape == true.shape and all(_are_images(one, wanted) for one in (found, true))
        if not valid:
            raise InputError(
                f"images, truth: expected both [n {' '.join(map(str, wanted))}] in [0, 1], got "
                f"{_described(found)} and {_described(true)}; take `Objects.image`, and "
                "`read_images` or `scenes`"
            )
        scores = self.camera.score(*(jnp.asarray(one, jnp.float32) for one in (found, true)))
        return {name: np.asarray(getattr(scores, name)) for name in ("psnr", "ssim", "rms")}

    def misfit_limit(self, calibration: str | Path = "") -> float:
        """Returns the largest `Objects.misfit` of an object that is to be trusted.

        It comes from a simulation with the run's validation images and the noise of its training,
        which takes some seconds (docs/guides/reconstruct.md). For a solver alone it is a constant.

        Args:
            calibration: As in `reconstruct`; the optics that it has fitted are simulated.

        Raises:
            InputError: If the run's data or the calibration cannot be read.
        """
        if not self.has_network:
            return SOLVED
        found = read_calibration(Path(calibration)) if calibration else None
        run = self._calibrated(found)
        count = min(self.batch_size, LIMIT_IMAGES, len(self.dataset.validation))
        recover, no_more_noise = run._recover(NO_REFINEMENT), np.zeros(self.sensor)
        return misfit_limit(
            simulated_misfits(run, recover, noise_sigma=no_more_noise, batch_size=count)
        )

    def reconstruct(
        self,
        frames: ArrayLike,
        *,
        calibration: str | Path = "",
        bin: int | None = None,
        square_pixels: bool | None = None,
        dark: ArrayLike | None = None,
        flat: ArrayLike | None = None,
        bad_pixels: ArrayLike | None = None,
        gain: float | None = None,
        centred: bool | None = None,
        refinement: Refinement = NO_REFINEMENT,
    ) -> Objects:
        """Recovers the objects that camera frames show.

        Args:
            frames: Counts of any number type: [y x] of one object, [n y x], or [n L y x]. For a run
                of L shots, L consecutive frames are of one object. The frames are on the model's
                own grid or, with `calibration`, those of a camera.
            calibration: File of `python -m jax_kdpr.calibrate`, which says where the pattern lies
                on the camera, how large it is and how it is turned. Doubts become Python warnings.
            bin: Camera pixels to join each way, read with `calibration`; None as for its frames.
            square_pixels: Whether to divide out the envelope of square mask pixels, which darkens
                the edge of a camera's far field; False for a mask finer than the model's. It is
                read with `calibration`; None as for its frames.
            dark: Frame [y x] without light, or several [n y x]; their mean is subtracted.
            flat: Frame of even light, or several; their mean is divided out.
            bad_pixels: Map [y x], not 0 where a pixel is to be replaced by its neighbours.
            gain: Counts of a model sample whose CDP is 1. Objects with an amplitude need it if
                there is no calibration. None scales each frame of a phase object to the light that
                such objects let through, whatever the exposure was.
            centred: Whether the zero frequency of frames on the model's grid lies in the middle,
                not at [0, 0]; None tries both, and keeps what explains the frames better. It must
                be None with `calibration`, which says where the zero frequency lies.
            refinement: Steps of a solver from the network's image.

        Raises:
            InputError: If the frames do not fit the run.
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
        if found is None and (bin, square_pixels) != (None, None):
            raise InputError("bin, square_pixels: are read only with calibration=; leave them out")
        if gain is not None:
            require("gain", gain, GAINS)
        if not isinstance(refinement, Refinement):
            raise InputError(f"refinement: expected a kdpr.Refinement, got {refinement!r}")
        run = self._calibrated(found)
        references = References(shape, _mean(dark), _mean(flat), _mean(bad_pixels))
        correction = make_correction(references)
        light = np.stack([correct(one, correction) for one in shots.reshape(-1, *shape)])
        if found is None:
            ways = {True: uncentred(light, self.camera.axis), False: light}
            ways = ways if centred is None else {centred: ways[centred]}
        else:
            for note in calibration_notes(found, self, str(calibration)):
                warnings.warn(note, stacklevel=2)
            setup = _setup(found, references, run, bin, square_pixels)
            ways = {True: np.stack([on_grid(setup.window.crop(one), setup, run) for one in light])}
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
            )

        tried = {way: recover(seen) for way, seen in ways.items()}
        best = min(tried, key=lambda way: float(np.median(tried[way].misfit)))
        image, estimate, misfit, refined = map(np.asarray, tried[best])
        parts = scene_parts(image, self.camera.scene)
        plain = np.ones(image.shape[:3], np.float32)
        phase, amplitude = parts.get("phase", 0 * plain), parts.get("amplitude", plain)
        return Objects(image, phase, amplitude, estimate, misfit, refined, best)

    def evaluate(
        self, *, output: str | Path | None = None, refinement: Refinement = NO_REFINEMENT
    ) -> dict[str, dict[str, float]]:
        """Scores the run on its test images, and writes what `python -m jax_kdpr.evaluate` writes.

        Args:
            output: A folder for the files; None for the run folder, where a run that is not what
                that folder holds is refused (`with_optics`, other variables).
            refinement: Refinement of the network's images; the refined images are scored too.

        Returns:
            For each answer ("recovered", "spectral_estimate", trivial ones, ...) the mean PSNR in
            dB, SSIM, rms over the object in radians, and their standard errors.

        Raises:
            InputError: If the run is not trained, its data have changed or are missing, or its
                scores do not belong into its folder.
        """
        if not self.is_trained:
            raise InputError("evaluate: scores a network, these are optics without one; load a run")
        as_trained = self._is_that_of_its_folder()
        if output is None and not as_trained:
            raise InputError(
                f"evaluate: {self.workdir} holds this run with other optics or variables, and the "
                "scores of that one; give output="
            )
        run = self if as_trained else dataclasses.replace(self, digest="")  # no checkpoint's
        place = None if output is None else Path(output)
        return score_run(run, output=place, refinement=refinement).result["scores"]

    def _is_that_of_its_folder(self) -> bool:
        kept = runs.load_run(self.workdir)
        same = self.config == kept.config and self.has_network
        leaves = [jax.tree.leaves(one.variables) for one in (self, kept)]
        return same and all(map(np.array_equal, *leaves))

    # These are made or compiled once, so that later frames do not pay for them.

    def _calibrated(self, found: Calibration | None) -> "Run":
        """The run with the optics that a calibration has fitted, if it has."""
        if found is None or not found.optics:
            return self
        known = json.dumps(found.optics, sort_keys=True)
        if known not in self._benches:
            self._benches[known] = cast(Run, self.with_optics(found.optics))
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


def _setup(
    found: Calibration,
    references: References,
    run: Run,
    bin: int | None,
    square_pixels: bool | None,
) -> Setup:
    """Returns how the frames of a calibration are read; warns of a bin that does not suit them."""
    reading = found.reading or Reading()
    bin = reading.bin if bin is None else bin
    require_whole("bin", bin, Range(1, 4096))
    square_pixels = reading.square_pixels if square_pixels is None else square_pixels
    window, geometry = make_window(references.shape, None, bin), found.geometry
    check_geometry(geometry.in_window(window), window.shape, run.sensor)
    side = pixel_side(run) if square_pixels else 0.0
    setup = Setup(references, window, geometry, reading.sampling, side, found.offset)
    if note := coarseness(setup, run):
        warnings.warn(note.replace("--bin ", "bin=").replace("--bin", "bin="), stacklevel=3)
    return setup


def _are_images(given: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Returns whether an array is [n, *shape] of numbers in [0, 1], but for rounding."""
    if given.dtype.kind not in "uifb" or given.ndim != 4 or given.shape[1:] != shape:
        return False
    return bool(np.all((given >= -ROUNDED) & (given <= 1 + ROUNDED)))


def _described(given: np.ndarray) -> str:
    said = f"{given.dtype} {list(given.shape)}"
    if given.dtype.kind not in "uif" or not given.size:
        return said
    return f"{said} from {given.min():.4g} to {given.max():.4g}"


def _mean(given: ArrayLike | None) -> np.ndarray | None:
    """Returns the mean of several frames, or the only one; None if there is none."""
    if given is None:
        return None
    frames = np.asarray(given)
    return frames.mean(axis=0) if frames.ndim == 3 else frames
