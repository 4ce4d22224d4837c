"""The camera of a system: object, device, free space, sensor. No network, no recovery.

    phases -> device -> masks
    image [h w c] -> field -> masks -> free space -> CDP y [k sh sw] -> noise

The design has no errors; a bench has (`optics.misalignment`), drawn at random or given.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from jax_kdpr.core import metrics
from jax_kdpr.core.metrics import ImageScores
from jax_kdpr.core.sharding import data_parallel
from jax_kdpr.core.types import Fields, Images, Intensities, Key, Masks, Phases, Scalar, Transfer
from jax_kdpr.optics import cdp
from jax_kdpr.optics import misalignment as perturbation
from jax_kdpr.optics.device import device_masks, written_phases
from jax_kdpr.optics.misalignment import Perturbation
from jax_kdpr.optics.noise import add_noise
from jax_kdpr.optics.objects import scene_channels, scene_field
from jax_kdpr.optics.propagation import make_propagation

Options = Mapping[str, Any]
DEFAULTS: Options = MappingProxyType({})
SCENE: Options = MappingProxyType({"kind": "phase", "phase_range": np.pi, "min_amplitude": 0.5})
WRITING = ("levels", "phase_range", "table", "superpixel")  # options of `written_phases`


class Optics(NamedTuple):
    """What a measurement is made through by design, as every recovery takes it."""

    masks: Masks  # phases, or transmittances where device or free space are not ideal
    transfer: Transfer | None = None


class Camera(NamedTuple):
    """What one camera takes, and its pure functions; see `make_camera`."""

    size: int  # height and width of scene and masks, pixels
    oversample: int
    axis: tuple[int, int]  # index of a CDP, [row, column], where the optical axis meets the sensor
    scene: Options  # all keyword arguments of `optics.objects.scene_field` and `field_image`
    mesh: Mesh | None  # devices that a batch is spread over
    written: Callable[[Phases], Phases]
    """written(phases) -> what the device is told to show."""
    optics: Callable[[Phases], Optics]
    """optics(phases) -> the optics without any error of a bench."""
    measure: Callable[..., Intensities]
    """measure(phases, images, key, by=None) -> the CDPs of a batch, noise included; `by` is the
    `Perturbation` of the bench for the whole batch, in place of `jitter`."""

    @property
    def channels(self) -> int:
        """Of an image of its scenes."""
        return scene_channels(self.scene["kind"])

    def score(self, recovered: Images, images: Images) -> ImageScores:
        """Scores recovered images of its scenes against the true ones."""
        has_phase = self.scene["kind"] != "amplitude"
        return metrics.score(
            recovered, images, phase_range=self.scene["phase_range"] if has_phase else None
        )

    def encode(self, images: Images) -> Fields:
        """Returns the field of each image."""
        return jax.vmap(lambda image: scene_field(image, **self.scene))(images)


def centred(
    pattern: Float[np.ndarray, "sh sw"], axis: tuple[int, int]
) -> Float[np.ndarray, "sh sw"]:
    """Returns a CDP as a camera has it: `Camera.axis` in the middle, at [sh // 2, sw // 2]."""
    middle = [n // 2 - place for place, n in zip(axis, pattern.shape, strict=True)]
    return np.roll(pattern, middle, axis=(0, 1))


def make_camera(
    *,
    size: int,
    oversample: int = 1,
    scene: Options = DEFAULTS,
    device: Options = DEFAULTS,
    propagation: Options = DEFAULTS,
    jitter: Options = DEFAULTS,
    noise: Options = DEFAULTS,
    mesh: Mesh | None = None,
) -> Camera:
    """Builds the pure functions of one camera.

    Args:
        size: Height and width of scene and masks, pixels.
        oversample: Zero padding of the operator, 1 or 2 (`optics.cdp`).
        scene: Encoding: options of `optics.objects.scene_field` that differ from `SCENE`.
        device: What it makes of the phases: options of `optics.device`.
        propagation: To the sensor: options of `optics.propagation.make_propagation`.
        jitter: Random errors of the bench, scene by scene: options of `optics.misalignment.draw`.
        noise: Of the sensor: options of `optics.noise.add_noise`; its "kind" is "none" by default.
        mesh: Devices to spread a batch over.
    """
    writing = {name: value for name, value in device.items() if name in WRITING}
    showing = {name: value for name, value in device.items() if name not in WRITING}
    is_far = propagation.get("kind", "far") == "far"
    scene = {**SCENE, **scene}
    sensor_noise = {"kind": "none", **noise}
    jitters = any(jitter.values())

    def written(phases: Phases) -> Phases:
        return written_phases(phases, **writing)

    def free_space(wavelength_error: Scalar | float = 0.0):
        lengths = dict(propagation)
        if not is_far:
            lengths["wavelength"] = lengths["wavelength"] * (1.0 + wavelength_error)
        return make_propagation((size, size), oversample=oversample, **lengths)

    def optics(phases: Phases) -> Optics:
        space = free_space()
        return Optics(space.through(device_masks(written(phases), **showing)), space.transfer)

    def encode(image):
        return scene_field(image, **scene)

    def measure_design(optics: Optics, image, key):
        clean = cdp.measure_intensity(
            encode(image), optics.masks, oversample=oversample, transfer=optics.transfer
        )
        return add_noise(key, clean, **sensor_noise)

    def measure_bench(bench, image, key):
        phases, by = bench
        # The same device gives a longer wavelength less phase.
        shown = device_masks(phases, gain=(1.0 + by.gain) / (1.0 + by.wavelength), **showing)
        field = perturbation.defocused_field(encode(image), by)
        space = free_space(by.wavelength)
        if space.transfer is None:  # samples lie at lambda z / (M p): the camera's do not move
            if space.chirp is not None:
                field = field * space.chirp
            spectra = perturbation.scaled_spectra(
                field,
                perturbation.displaced_masks(shown, by, fine=perturbation.FINE),
                (oversample * size, oversample * size),
                magnification=1.0 + by.wavelength,
            )
        else:
            spectra = cdp.cdp_forward(
                field,
                perturbation.displaced_masks(shown, by),
                oversample=oversample,
                transfer=space.transfer,
            )
        return add_noise(key, cdp.intensity(spectra), **sensor_noise)

    def measure_jittered(phases: Phases, image, key):
        bench_key, noise_key = jax.random.split(key)
        return measure_bench((phases, perturbation.draw(bench_key, **jitter)), image, noise_key)

    design, bench, jittered = (
        data_parallel(one, mesh) for one in (measure_design, measure_bench, measure_jittered)
    )

    def measure(
        phases: Phases, images: Images, key: Key, by: Perturbation | None = None
    ) -> Intensities:
        keys = jax.random.split(key, images.shape[0])
        if by is not None:
            return bench((written(phases), jax.tree.map(jnp.asarray, by)), images, keys)
        if jitters:
            return jittered(written(phases), images, keys)
        return design(optics(phases), images, keys)

    return Camera(
        size=size,
        oversample=oversample,
        axis=(size // 2, size // 2) if propagation.get("kind") == "angular_spectrum" else (0, 0),
        scene=scene,
        mesh=mesh,
        written=written,
        optics=optics,
        measure=measure,
    )
