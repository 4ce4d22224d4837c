"""How the samples of the model lie on a real camera: pixels, extent, resolution; in metres.

A model sample is lambda f / (M p) wide (`propagation.sensor_pixel`), where M is the number of
zero-padded pixels a side and p the pitch of the mask. A camera has pixels of its own. Its frames
must be resampled onto the model's samples, which is easiest where one sample is a whole number of
camera pixels.
"""

import math
from typing import NamedTuple

import numpy as np

from jax_kdpr.optics.propagation import PropagationOptions, sensor_pixel, squares_note


class Layout(NamedTuple):
    """What decides how the model's samples lie on a camera; lengths in metres."""

    pixels: int  # N, the pixels of the mask each way
    wavelength: float
    pitch: float  # of the mask
    distance: float  # from mask to sensor; in the far field the focal length of the lens
    camera_pixel: float  # side of a camera pixel
    kind: str = "far"  # one of `propagation.PROPAGATORS`
    oversample: int | float = 1  # zero padding, M = oversample N; 1 / sensor.step if that is set
    camera_pixels: tuple[int, int] | None = None  # (height, width) of the chip, if known
    fill_factor: float = 1.0  # share of a mask pixel's area that is used, in (0, 1]

    @property
    def space(self) -> PropagationOptions:
        """Free space between mask and sensor."""
        lengths = {"wavelength": self.wavelength, "pitch": self.pitch, "distance": self.distance}
        return PropagationOptions(kind=self.kind, **lengths)


class Sampling(NamedTuple):
    """How the model's samples lie on a camera; lengths in metres."""

    sensor_pixel: float  # width of one sample of the model
    camera_pixels_per_sensor_pixel: float
    extent: float  # side of the model's whole pattern
    extent_camera_pixels: float
    fits: bool | None  # whether the chip holds the whole pattern; None if its size is not known
    whole_ratio: int  # nearest whole number of camera pixels to a model sample, at least 1
    whole_ratio_distance: float | None  # `Layout.distance` that gives it; None if none does
    whole_ratio_camera_pixel: float  # camera pixel that would give it at this distance
    # Shortest period in the intensity: lambda f / (N p), from the two edges of the object. Where
    # samples keep the mask's pitch it is p, for a field of pitch p holds at most 1 / (2 p) cycles a
    # metre, and its intensity 1 / p.
    finest_fringe: float
    # Largest `oversample` (0, 1 or 2) whose samples are not finer than the camera's: 2 samples
    # every fringe twice (Nyquist), 0 is too coarse even for 1.
    oversample_resolved: int
    # Intensity at the middle of the pattern's edge over that at its centre, if mask pixels are
    # squares: sinc^2 of half the pixel's side over the pitch, at the corners its square. The model
    # has 1 everywhere. None where samples keep the mask's pitch.
    mask_pixel_factor: float | None
    # Contrast of the finest fringe after integration over a camera pixel (fully sensitive):
    # sinc(pixel / period), and 0 beyond its first zero.
    camera_pixel_factor: float
    fresnel_number: float  # (N p / 2)^2 / (lambda distance)

    @property
    def camera_pixels_per_fringe(self) -> float:
        """Number of camera pixels in the finest fringe; fewer than 2 cannot hold it."""
        return self.finest_fringe / self.sensor_pixel * self.camera_pixels_per_sensor_pixel


def sampling_of(layout: Layout) -> Sampling:
    """Computes how the model's samples lie on a camera.

    Raises:
        ValueError: If a length is not positive or `layout.kind` is unknown.
    """
    for name in ("wavelength", "pitch", "distance", "camera_pixel"):
        length = getattr(layout, name)
        if not 0 < length < math.inf:
            raise ValueError(f"{name}: expected metres, above 0, got {length:g}")
    pixels, pitch, camera_pixel = layout.pixels, layout.pitch, layout.camera_pixel
    sensor = sensor_pixel(pixels, layout.space, oversample=layout.oversample)
    keeps_pitch = layout.space.propagator.keeps_pitch
    ratio = sensor / camera_pixel
    whole = max(1, round(ratio))
    extent = layout.oversample * pixels * sensor
    spread = layout.wavelength * layout.distance
    period = pitch if keeps_pitch else spread / (pixels * pitch)
    resolved = min(2, math.floor(period / camera_pixel * (1 + 1e-9)))
    if keeps_pitch and resolved:  # padding makes no finer samples
        resolved = 2
    chip, side = layout.camera_pixels, math.sqrt(layout.fill_factor) * pitch
    return Sampling(
        sensor_pixel=sensor,
        camera_pixels_per_sensor_pixel=ratio,
        extent=extent,
        extent_camera_pixels=extent / camera_pixel,
        fits=None if chip is None else extent <= min(chip) * camera_pixel,
        whole_ratio=whole,
        whole_ratio_distance=None if keeps_pitch else layout.distance * whole / ratio,
        whole_ratio_camera_pixel=sensor / whole,
        finest_fringe=period,
        oversample_resolved=resolved,
        mask_pixel_factor=None if keeps_pitch else float(np.sinc(side / (2 * pitch))) ** 2,
        camera_pixel_factor=float(np.sinc(camera_pixel / period)) if camera_pixel < period else 0.0,
        fresnel_number=(pixels * pitch / 2) ** 2 / spread,
    )


def camera_warnings(layout: Layout, found: Sampling) -> list[str]:
    """Returns warnings of what this camera records otherwise than the model; [] if nothing."""
    keeps_pitch = layout.space.propagator.keeps_pitch
    finer, smaller = "smaller camera pixels", "a smaller mask pitch, or fewer pixels"
    if not keeps_pitch:
        finer = f"a longer distance or {finer}"
        smaller = "a larger mask pitch (several panel pixels to a mask pixel) or a shorter distance"
    warnings = []
    if found.fits is False:
        warnings.append(
            f"the pattern's {found.extent_camera_pixels:.0f} camera pixels do not fit the chip: "
            f"its edge, which the model has, is not recorded; take {smaller}"
        )
    if found.oversample_resolved < layout.oversample:
        warnings.append(
            f"the camera pixel is coarser than the model sample at oversample {layout.oversample}: "
            f"take {'oversample 1' if found.oversample_resolved == 1 else finer}"
        )
    elif found.camera_pixels_per_fringe < 2 * (1 - 1e-9):
        warnings.append(
            f"{found.camera_pixels_per_fringe:.3g} camera pixels in the finest fringe: fewer than "
            f"2 cannot hold it, and the measurement is not the model's; take {finer}"
        )
    note = squares_note(layout.pixels, layout.space)
    return [*warnings, note] if note else warnings
