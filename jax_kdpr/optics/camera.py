"""The camera of a system: object, device, free space and sensor, without network or recovery.

    phases -> device -> masks
    image [h w c] -> field -> beam (-> gap) -> masks -> free space -> CDP y [k sh sw] -> noise

The design has no errors. A bench has errors (`optics.misalignment`), drawn at random or given.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from jax_kdpr.core import metrics
from jax_kdpr.core.metrics import ImageScores
from jax_kdpr.core.options import changed
from jax_kdpr.core.sharding import data_parallel
from jax_kdpr.core.types import Fields, Image, Images, Intensities, Intensity, Key, Phases, Scalar
from jax_kdpr.optics import cdp, misalignment
from jax_kdpr.optics.beam import Beam
from jax_kdpr.optics.cdp import Optics, as_phasors
from jax_kdpr.optics.device import DeviceOptions, device_masks, written_phases
from jax_kdpr.optics.misalignment import FINE, JitterOptions, MountOptions, Perturbation
from jax_kdpr.optics.noise import NoiseOptions, add_noise
from jax_kdpr.optics.objects import SceneOptions, scene_field
from jax_kdpr.optics.paths import Apart, LightPath, spread_pixels
from jax_kdpr.optics.propagation import (
    FreeSpace,
    PropagationOptions,
    gap_transfer,
    sampling_warnings,
)
from jax_kdpr.optics.window import SensorOptions, matrix_dft, samples_of_pattern


def draws_finely(
    device: DeviceOptions, mount: MountOptions, propagation: PropagationOptions
) -> bool:
    """Whether masks have more than one sample in a pixel of the object (`Camera.draws_finely`)."""
    changes = bool(device.crosstalk) or not mount.is_none
    return changes and not propagation.propagator.keeps_pitch


@dataclasses.dataclass(frozen=True)
class Camera:
    """The camera that takes the CDPs of one system; its methods are pure functions.

    Its options key compiled programs: do not change them, use `dataclasses.replace` instead.
    """

    size: int  # height and width of scene and masks, pixels
    oversample: int = 1  # zero padding of the operator, 1 or 2 (`optics.cdp`)
    scene: SceneOptions = dataclasses.field(default_factory=SceneOptions)
    device: DeviceOptions = dataclasses.field(default_factory=DeviceOptions)
    mount: MountOptions = dataclasses.field(default_factory=MountOptions)
    propagation: PropagationOptions = dataclasses.field(default_factory=PropagationOptions)
    beam: Beam | None = None  # lights the object; None: an even plane wave
    jitter: JitterOptions = dataclasses.field(default_factory=JitterOptions)
    grid: SensorOptions = dataclasses.field(default_factory=SensorOptions)
    noise: NoiseOptions = dataclasses.field(default_factory=NoiseOptions)
    mesh: Mesh | None = None  # devices that a batch is spread over

    @property
    def channels(self) -> int:
        """Number of channels in an image of a scene."""
        return self.scene.channels

    @property
    def sensor(self) -> tuple[int, int]:
        """Size (sh, sw) of a CDP."""
        whole = samples_of_pattern(self.size, self.step)
        return self.grid.rows or whole, self.grid.columns or whole

    @property
    def step(self) -> float:
        """Spacing of the samples of a far field, in cycles a side of the object."""
        return self.grid.step or 1 / self.oversample

    @property
    def spacing(self) -> float:
        """Spacing of the samples of a far field, in cycles a mask pitch."""
        return self.step / self.size

    @property
    def is_plain(self) -> bool:
        """Whether its samples are all those of the plain DFT, zero-padded or not."""
        return self.grid == SensorOptions()

    @property
    def axis(self) -> tuple[int, int]:
        """Index [row, column] of a CDP where the optical axis meets the sensor."""
        middle = self.size // 2 if self.propagation.propagator.keeps_pitch else 0
        return middle, middle

    @property
    def keeps_light(self) -> bool:
        """Whether a CDP holds all light that an object lets through.

        It does not where light passes beside the mask, or leaves the window, such as light
        scattered by edges within a pixel of the mask.
        """
        grid = self.grid
        return not (grid.rows or grid.columns or self.draws_finely or self.propagation.gap)

    @property
    def knows_light(self) -> bool:
        """Whether every CDP of its scenes holds the same amount of light: no object absorbs."""
        return self.scene.kind == "phase" and self.keeps_light

    @property
    def draws_finely(self) -> bool:
        """Whether its masks are finer than the object, with edges within a pixel of the object."""
        return draws_finely(self.device, self.mount, self.propagation)

    @property
    def finest_period(self) -> float:
        """Finest period of a pattern, in samples; in the far field a cycle a side of the object."""
        return 1.0 if self.propagation.propagator.keeps_pitch else 1 / self.step

    @property
    def quiet(self) -> "Camera":
        """The same camera without noise and errors of the bench."""
        return dataclasses.replace(self, noise=NoiseOptions(), jitter=JitterOptions())

    def warnings(self) -> list[str]:
        """Returns warnings where sampling is too coarse for what a bench does; [] if nowhere."""
        found = sampling_warnings(self.size, self.propagation, oversample=1 / self.step)
        beam = [] if self.beam is None else self.beam.warnings()
        return [*(f"propagation: {one}" for one in found), *beam]

    def written(self, phases: Phases) -> Phases:
        """Returns the phases that the device is told to show."""
        return written_phases(phases, self.device)

    def optics(self, phases: Phases) -> Optics:
        """Returns the optics, with no errors of a bench except those that are known."""
        written, space = self.written(phases), self._space()
        fine = FINE if self.draws_finely else 1
        masks = device_masks(written, self.device, fine=fine)
        if not self.mount.is_none:
            masks = misalignment.displaced_masks(
                masks, self.mount, fine=fine, given=self._given(fine)
            )
        masks, path = space.through(masks, fine=fine), self._path(space, fine=fine)
        incident = None if self.beam is None else self.beam.incident()
        if space.gap is not None:
            path = Apart(space.gap, incident, path)
        elif incident is not None:  # one plane: mask and beam are one factor
            masks = as_phasors(masks) * jnp.conj(spread_pixels(incident, fine))[None]
        amplitude = None if self.beam is None else self.beam.amplitude()
        return Optics(masks, path, written, amplitude)

    def encode(self, images: Images) -> Fields:
        """Returns the field of each image."""
        return jax.vmap(lambda image: scene_field(image, self.scene))(images)

    def measure(
        self, optics: Optics, images: Images, key: Key, by: Perturbation | None = None
    ) -> Intensities:
        """Returns the CDPs of a batch, noise included.

        Args:
            optics: Optics of the phases, from `optics`.
            images: Scenes.
            key: Random key for noise and errors of the bench.
            by: Errors of the bench for the whole batch, in place of those that `jitter` draws.
        """
        if not isinstance(optics, Optics) or optics.written is None:
            raise ValueError("optics: expected those that Camera.optics(phases) returns")
        keys = jax.random.split(key, images.shape[0])
        if by is not None:
            bench = (optics.written, jax.tree.map(jnp.asarray, by))
            return data_parallel(self._shoot_bench, self.mesh)(bench, images, keys)
        if not self.jitter.is_none:
            shoot = data_parallel(self._shoot_jittered, self.mesh)
            return shoot(optics.written, images, keys)
        return data_parallel(self._shoot_design, self.mesh)(optics, images, keys)

    def clean(self, optics: Optics, image: Image) -> Intensity:
        """Returns the CDPs of one scene without noise and errors of the bench."""
        return cdp.measure_intensity(
            scene_field(image, self.scene),
            optics.masks,
            oversample=self.oversample,
            path=optics.path,
        )

    def score(self, recovered: Images, images: Images) -> ImageScores:
        """Scores recovered images of its scenes against the true ones."""
        phase_range = self.scene.phase_range if self.scene.has_phase else None
        return metrics.score(recovered, images, phase_range=phase_range)

    def _space(self, wavelength_error: Scalar | float = 0.0) -> FreeSpace:
        wavelength = self.propagation.wavelength * (1.0 + wavelength_error)
        lengths, shape = changed(self.propagation, wavelength=wavelength), (self.size, self.size)
        space = lengths.propagator.space(shape, self.oversample, lengths)
        return space._replace(gap=gap_transfer(shape, lengths)) if self.propagation.gap else space

    def _shoot_design(self, optics: Optics, image: Image, key: Key) -> Intensity:
        return add_noise(key, self.clean(optics, image), self.noise)

    def _shoot_jittered(self, written: Phases, image: Image, key: Key) -> Intensity:
        bench_key, noise_key = jax.random.split(key)
        by = misalignment.draw(bench_key, self.jitter)
        return self._shoot_bench((written, by), image, noise_key)

    def _shoot_bench(self, bench: tuple[Phases, Perturbation], image: Image, key: Key) -> Intensity:
        written, by = bench
        # The same device adds less phase at a longer wavelength. (The object's phase is the one at
        # the wavelength of the bench.)
        gain = (1.0 + by.gain) / (1.0 + by.wavelength)
        field = misalignment.aberrated_field(scene_field(image, self.scene), by)
        if self.beam is not None:
            field = field * self.beam.incident(by)
        by, space, magnification = self.mount.moved(by), self._space(by.wavelength), 1.0
        if space.gap is not None:
            field = Apart(space.gap).forward(field)
        fine = self._fine(space)
        shown = device_masks(written, self.device, gain=gain, fine=fine)
        if space.chirp is not None:
            field = field * space.chirp
        # Samples of the model scale with lambda z / (M p), those of the camera do not move.
        if space.transfer is None:
            magnification = 1.0 + by.wavelength
        spectra = cdp.cdp_forward(
            field,
            misalignment.displaced_masks(shown, by, fine=fine, given=self._given(fine)),
            oversample=self.oversample if space.transfer is not None else 1,
            path=self._path(space, fine=fine, magnification=magnification),
        )
        return add_noise(key, cdp.intensity(spectra), self.noise)

    def _fine(self, space: FreeSpace) -> int:
        """Returns the samples of a mask pixel, each way.

        1 gives its mean, where a sensor in the near field has the same pixels.
        """
        return FINE if space.transfer is None else 1

    def _given(self, fine: int) -> int:
        """Returns the samples of a mask pixel, each way, that `device_masks` has drawn."""
        return fine if self.device.crosstalk else 1

    def _path(
        self, space: FreeSpace, *, fine: int = 1, magnification: float | Scalar = 1.0
    ) -> LightPath | None:
        """Returns what brings the light to the sensor; None for the plain DFT."""
        if space.transfer is not None:
            return space.transfer
        if self.is_plain and fine == 1:
            return None
        return matrix_dft(
            self.size, self.sensor, step=self.step, fine=fine, magnification=magnification
        )


def centred(
    pattern: Float[np.ndarray, "sh sw"], axis: tuple[int, int]
) -> Float[np.ndarray, "sh sw"]:
    """Returns a CDP as a camera has it, with `Camera.axis` in the middle, [sh // 2, sw // 2]."""
    middle = [n // 2 - place for place, n in zip(axis, pattern.shape, strict=True)]
    return np.roll(pattern, middle, axis=(0, 1))


def uncentred(
    patterns: Float[np.ndarray, "*n sh sw"], axis: tuple[int, int]
) -> Float[np.ndarray, "*n sh sw"]:
    """Returns patterns with their middle moved to `Camera.axis`: the inverse of `centred`."""
    middle = [place - n // 2 for place, n in zip(axis, patterns.shape[-2:], strict=True)]
    return np.roll(patterns, middle, axis=(-2, -1))
