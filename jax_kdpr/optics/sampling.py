"""How the samples of the model lie on a real camera: pixels, extent, resolution; in metres.

A model sample is lambda f / (M p) wide (`propagation.sensor_pixel`), where M is the number of
zero-padded pixels a side and p the pitch of the mask. A camera has pixels of its own. Its frames
must be resampled onto the model's samples, which is easiest where one sample is a whole number of
camera pixels.
"""

import math
from typing import NamedTuple

import numpy as np

from jax_kdpr.optics.propagation import PropagationOptions, sensor_pixel

# Contents of the file that the command geometry writes.
RECORD = {"bench": {"camera_pixel": float}, "sensor_pixel": float, "warnings": [str]}


class Geometry(NamedTuple):
    """Geometry of one bench, lengths in metres; `bench_geometry` explains the fields."""

    sensor_pixel: float
    camera_pixels_per_sensor_pixel: float
    extent: float
    extent_camera_pixels: float
    fits: bool | None
    whole_ratio: int
    whole_ratio_distance: float | None
    whole_ratio_camera_pixel: float
    finest_fringe: float
    oversample_resolved: int
    mask_pixel_factor: float | None
    camera_pixel_factor: float
    fresnel_number: float

    @property
    def camera_pixels_per_fringe(self) -> float:
        """Number of camera pixels in the finest fringe; fewer than 2 cannot hold it."""
        return self.finest_fringe / self.sensor_pixel * self.camera_pixels_per_sensor_pixel


def bench_geometry(
    *,
    pixels: int,
    oversample: int | float = 1,
    kind: str = "far",
    wavelength: float,
    pitch: float,
    distance: float,
    camera_pixel: float,
    camera_pixels: tuple[int, int] | None = None,
    fill_factor: float = 1.0,
) -> Geometry:
    """Computes how the model's samples lie on a camera.

    Args:
        pixels: N, the pixels of the mask each way.
        oversample: Zero padding of the model, M = `oversample` N; 1 / `sensor.step` if that is set.
        kind: "far", "fresnel" or "angular_spectrum".
        wavelength: Wavelength, in metres.
        pitch: Pitch of the mask, in metres.
        distance: From mask to sensor, in metres; in the far field the focal length of the lens.
        camera_pixel: Side of a camera pixel, in metres.
        camera_pixels: (height, width) of the chip, if known.
        fill_factor: Share of a mask pixel's area that is used, in (0, 1].

    Returns:
        A `Geometry` with these fields.

        * sensor_pixel: Width of one sample of the model.
        * camera_pixels_per_sensor_pixel: This width in camera pixels.
        * extent, extent_camera_pixels: Side of the model's whole pattern.
        * fits: Whether the chip holds the whole pattern; None if its size is not known.
        * whole_ratio: Nearest whole number of camera pixels to a model sample, at least 1.
        * whole_ratio_distance: Distance, or focal length, that gives this number; None for the
          angular spectrum, whose model sample is the pitch at any distance.
        * whole_ratio_camera_pixel: Camera pixel that would give this number at this distance.
        * finest_fringe: Shortest period in the intensity. It is lambda f / (N p), from the two
          edges of the object. For the angular spectrum it is p: a field of pitch p holds at most
          1 / (2 p) cycles a metre, and its intensity 1 / p.
        * oversample_resolved: Largest `oversample` (0, 1 or 2) whose samples are not finer than the
          camera's. 2 samples every fringe twice (Nyquist); 0 means that the camera is too coarse
          even for 1.
        * mask_pixel_factor: Intensity at the middle of the pattern's edge over that at its centre,
          if mask pixels are squares and not points: sinc^2 of half the pixel's side over the
          pitch. At the corners it is the square of that. The model has 1 everywhere. None for the
          angular spectrum.
        * camera_pixel_factor: Contrast of the finest fringe after integration over a camera pixel
          (fully sensitive): sinc(pixel / period), and 0 beyond its first zero.
        * fresnel_number: (N p / 2)^2 / (lambda distance).

    Raises:
        ValueError: If a length is not positive or `kind` is unknown.
    """
    lengths = {
        "wavelength": wavelength,
        "pitch": pitch,
        "distance": distance,
        "camera_pixel": camera_pixel,
    }
    for name, length in lengths.items():
        if not 0 < length < math.inf:
            raise ValueError(f"{name}: expected metres, above 0, got {length:g}")
    space = PropagationOptions(kind=kind, wavelength=wavelength, pitch=pitch, distance=distance)
    sensor = sensor_pixel(pixels, space, oversample=oversample)
    is_near = kind == "angular_spectrum"
    ratio = sensor / camera_pixel
    whole = max(1, round(ratio))
    extent = oversample * pixels * sensor
    period = pitch if is_near else wavelength * distance / (pixels * pitch)
    side = math.sqrt(fill_factor) * pitch
    return Geometry(
        sensor_pixel=sensor,
        camera_pixels_per_sensor_pixel=ratio,
        extent=extent,
        extent_camera_pixels=extent / camera_pixel,
        fits=None if camera_pixels is None else extent <= min(camera_pixels) * camera_pixel,
        whole_ratio=whole,
        whole_ratio_distance=None if is_near else distance * whole / ratio,
        whole_ratio_camera_pixel=sensor / whole,
        finest_fringe=period,
        oversample_resolved=min(2, math.floor(period / camera_pixel * (1 + 1e-9))),
        mask_pixel_factor=None if is_near else float(np.sinc(side / (2 * pitch))) ** 2,
        camera_pixel_factor=max(float(np.sinc(camera_pixel / period)), 0.0)
        if camera_pixel < period
        else 0.0,
        fresnel_number=(pixels * pitch / 2) ** 2 / (wavelength * distance),
    )


def geometry_warnings(found: Geometry, *, oversample: int | float) -> list[str]:
    """Returns warnings of what the model does not describe in a bench; [] if there are none."""
    warnings = []
    if found.fits is False:
        warnings.append(
            f"the pattern's {found.extent_camera_pixels:.0f} camera pixels do not fit the chip: "
            "its edge, which the model has, is not recorded; take a larger mask pitch (several "
            "panel pixels to a mask pixel) or a shorter distance"
        )
    if found.oversample_resolved < oversample:
        warnings.append(
            f"the camera pixel is coarser than the model sample at oversample {oversample}: "
            + ("take oversample 1" if found.oversample_resolved == 1 else "take a longer distance")
        )
    elif found.camera_pixels_per_fringe < 2 * (1 - 1e-9):
        warnings.append(
            f"{found.camera_pixels_per_fringe:.3g} camera pixels in the finest fringe: fewer than "
            "2 cannot hold it, and the measurement is not the model's; take a longer distance or "
            "smaller camera pixels"
        )
    return warnings
