"""Resamples frames from the pixels of a camera to the sensor grid of the model.

A point of the pattern has centred coordinates u = (u_y, u_x) in model samples. The zero frequency
(or, for "angular_spectrum", sample [sh // 2, sw // 2] of the grid) is at (0, 0). The camera sees
the point at

    (row, column) = centre + scale * R(rotation) * O * u,

where O swaps and mirrors the axes for the orientation: first the transposition, then the flips.

A CDP of the model holds *samples* of the continuous pattern, one at each u. "points" reads them
from a cubic spline whose integral over each camera pixel is the count of that pixel. A camera with
two or more pixels (`CAMERA_NYQUIST`) in the finest period of the pattern holds the whole pattern.
That period is one cycle of the object's side or, for "angular_spectrum", one sample. "area"
integrates over a model sample, like a camera whose pixels are as large as the model's samples. It
has less noise, but its amplitudes are a quarter off the model's. Both give counts per model sample,
and keep the sum of a pattern that fills the grid.
"""

from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from scipy import ndimage

from jax_kdpr.core.errors import InputError
from jax_kdpr.optics.camera import uncentred

FLIPS = ("none", "vertical", "horizontal", "both")
Orientation = tuple[str, bool]  # (flip, transpose)
ORIENTATIONS = tuple(product(FLIPS, (False, True)))
SAMPLINGS = ("points", "area")
SPLINE = 3  # order
SPLINE_REACH = 20  # pixels from a frame's edge, beyond which it no longer affects a spline (1e-9)
# Standard deviation of a point of `frame_spline` over that of a frame of white noise, averaged over
# places between the pixels.
POINT_NOISE = 1.215
CAMERA_NYQUIST = 2.0  # camera pixels in a finest period of the pattern
CAMERA_ENOUGH = 3.0  # such pixels from which on "points" is exact to 1 %


class Window(NamedTuple):
    """The part of a raw frame that is used, and how many of its pixels are joined."""

    y: int
    x: int
    height: int
    width: int
    bin: int = 1

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of what `crop` and `join` leave."""
        return self.height // self.bin, self.width // self.bin

    def crop(self, frame: Shaped[np.ndarray, "h w"]) -> Shaped[np.ndarray, "wh ww"]:
        """Returns the window's part of a raw frame, with its pixels not joined."""
        return frame[self.y : self.y + self.height, self.x : self.x + self.width]

    def join(self, light: Float[np.ndarray, "wh ww"]) -> Float[np.ndarray, "ch cw"]:
        """Sums the counts of a corrected and cropped frame over the bins."""
        height, width = self.shape
        return light.reshape(height, self.bin, width, self.bin).sum(axis=(1, 3))


class Geometry(NamedTuple):
    """How the pattern lies on the camera; lengths in pixels of the raw frame."""

    centre_y: float  # row of the zero frequency
    centre_x: float
    rotation: float = 0.0  # degrees, from the row axis towards the column axis
    scale: float = 1.0  # camera pixels in a model sample
    flip: str = "none"
    transpose: bool = False

    def camera_points(self, u: Float[np.ndarray, "2 *n"]) -> Float[np.ndarray, "2 *n"]:
        """Returns the rows and columns at which the camera sees centred model coordinates."""
        return np.tensordot(self._matrix(), u, axes=1) + self._centre(u)

    def model_points(self, pixels: Float[np.ndarray, "2 *n"]) -> Float[np.ndarray, "2 *n"]:
        """Returns the centred model coordinates that camera pixels see."""
        return np.tensordot(np.linalg.inv(self._matrix()), pixels - self._centre(pixels), axes=1)

    def in_window(self, window: Window) -> "Geometry":
        """Returns the geometry in the pixels that `Window.crop` and `join` leave."""
        return self._replace(
            centre_y=(self.centre_y - window.y + 0.5) / window.bin - 0.5,
            centre_x=(self.centre_x - window.x + 0.5) / window.bin - 0.5,
            scale=self.scale / window.bin,
        )

    def in_frame(self, window: Window) -> "Geometry":
        """Returns the geometry in pixels of the raw frame: the inverse of `in_window`."""
        return self._replace(
            centre_y=(self.centre_y + 0.5) * window.bin - 0.5 + window.y,
            centre_x=(self.centre_x + 0.5) * window.bin - 0.5 + window.x,
            scale=self.scale * window.bin,
        )

    def _centre(self, points: np.ndarray) -> np.ndarray:
        return np.reshape([self.centre_y, self.centre_x], (2, *[1] * (points.ndim - 1)))

    def _matrix(self) -> Float[np.ndarray, "2 2"]:
        angle = np.deg2rad(self.rotation)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        mirrored = [self.flip in (one, "both") for one in ("vertical", "horizontal")]
        mirror = np.diag(np.where(mirrored, -1.0, 1.0))
        swap = np.array([[0.0, 1.0], [1.0, 0.0]]) if self.transpose else np.eye(2)
        return self.scale * turn @ mirror @ swap


def default_geometry(
    window: Window,
    sensor: tuple[int, int],
    scale: float | None,
    *,
    rotation: float = 0.0,
    flip: str = "none",
    transpose: bool = False,
) -> Geometry:
    """Returns the geometry of a pattern whose grid (sh, sw) is centred in the window.

    A scale of None is the largest that fits. The rest is as in `Geometry`.
    """
    found = scale or min(window.height / sensor[0], window.width / sensor[1])
    # On an even grid the zero frequency is half a model sample off the middle. The orientation
    # decides on which side.
    geometry = Geometry(0.0, 0.0, rotation, found, flip, transpose)
    middle = np.array([(samples - 1) / 2 - samples // 2 for samples in sensor])
    offset = geometry.camera_points(middle)
    return geometry._replace(
        centre_y=float(window.y + (window.height - 1) / 2 - offset[0]),
        centre_x=float(window.x + (window.width - 1) / 2 - offset[1]),
    )


def centred_on_light(geometry: Geometry, lights: list[Float[np.ndarray, "h w"]]) -> Geometry:
    """Returns a geometry whose zero frequency lies in the middle of the bright part of frames."""
    bright = np.maximum(np.mean(lights, axis=0) - np.median(lights), 0.0) ** 2
    if not bright.any():
        return geometry
    y, x = (
        float(np.average(np.arange(n), weights=bright.sum(1 - axis)))
        for axis, n in enumerate(bright.shape)
    )
    return geometry._replace(centre_y=y, centre_x=x)


def make_window(shape: tuple[int, int], crop: tuple[int, int, int, int] | None, bin: int) -> Window:
    """Returns the window of a crop (y, x, height, width), without pixels that do not fill a bin.

    Raises:
        InputError: If the crop does not lie in the frame, or is smaller than a bin.
    """
    y, x, height, width = crop or (0, 0, *shape)
    if min(y, x) < 0 or min(height, width) < 1 or y + height > shape[0] or x + width > shape[1]:
        raise InputError(
            f"--crop: expected Y,X,H,W inside the frame of {shape[0]} x {shape[1]}, got "
            f"{y},{x},{height},{width}"
        )
    if min(height, width) < bin:
        raise InputError(f"--bin: expected at most {min(height, width)}, got {bin}")
    return Window(y, x, height - height % bin, width - width % bin, bin)


def grid_window(window: Window, geometry: Geometry, sensor: tuple[int, int]) -> Window:
    """Returns the part of a window that the model's grid needs: its bounding box and a margin.

    Pixels further away say nothing about the saturation or the light of the pattern. The bins stay
    where they are. The grid (sh, sw) must lie in the window (`check_geometry`).
    """
    points = geometry.in_window(window).camera_points(sensor_points(sensor)).reshape(2, -1)
    # "area" reads up to half a model sample, rotated, beyond the samples.
    margin = SPLINE_REACH + geometry.scale / window.bin
    low = np.maximum(np.floor(points.min(axis=1) - margin), 0).astype(int)
    high = np.minimum(np.ceil(points.max(axis=1) + margin).astype(int) + 1, window.shape)
    (y, x), (height, width) = (window.bin * low).tolist(), (window.bin * (high - low)).tolist()
    return Window(window.y + y, window.x + x, height, width, window.bin)


def sensor_points(sensor: tuple[int, int]) -> Float[np.ndarray, "2 sh sw"]:
    """Returns the centred coordinates of the model's samples, zero at [sh // 2, sw // 2]."""
    axes = [np.arange(samples, dtype=float) - samples // 2 for samples in sensor]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def pixel_envelope(
    u: Float[np.ndarray, "2 *n"], spacing: float, pixel_side: float
) -> Float[np.ndarray, "*n"]:
    """Returns the share of a far field's intensity that square mask pixels leave.

    The model's mask pixels are points, whose pattern repeats without end. A square of side s (in
    mask pitches) multiplies the intensity by sinc^2(s nu) along each axis, with nu in cycles a
    pitch. For s = 1 that is 0.41 at the middle of the pattern's edge and 0.16 in its corner.

    Args:
        u: Points, in model samples from the optical axis.
        spacing: Spacing of the model's samples, in cycles a mask pitch (`camera.Camera.spacing`).
        pixel_side: s; 0 for points, and for "angular_spectrum".
    """
    return np.prod(np.sinc(pixel_side * spacing * u) ** 2, axis=0)


def check_geometry(geometry: Geometry, shape: tuple[int, int], sensor: tuple[int, int]) -> None:
    """Refuses a geometry whose grid (sh, sw) reaches past a frame (after `join`, `in_window`).

    Raises:
        InputError: If it does; the message counts in pixels of the window, after binning.
    """
    if shape[0] < sensor[0] or shape[1] < sensor[1]:
        raise InputError(
            f"frames: expected at least {sensor[0]} x {sensor[1]} pixels, the model's sensor grid, "
            f"got {shape[0]} x {shape[1]} (after cropping and binning); use more of them"
        )
    points = geometry.camera_points(sensor_points(sensor)).reshape(2, -1)
    low, high = points.min(axis=1), points.max(axis=1)
    if not (np.all(low >= -0.5) and np.all(high <= np.array(shape) - 0.5)):  # nan too
        raise InputError(
            f"the pattern would reach from row, column {low[0]:.1f}, {low[1]:.1f} to "
            f"{high[0]:.1f}, {high[1]:.1f} of a frame of {shape[0]} x {shape[1]} (after cropping "
            "and binning); correct centre (or shift), rotation and scale, crop less, or move the "
            "camera so that it sees the whole pattern"
        )


def useful_bin(camera_pixels: float) -> int:
    """Returns how many pixels each way can be joined so that `CAMERA_ENOUGH` are left, at least 1.

    `camera_pixels` is their number in the finest period of the pattern. "points" uses the light of
    one pixel at each sample, so that it wastes most of the light if they are many.
    """
    return max(1, int(camera_pixels / CAMERA_ENOUGH + 1e-9))


def sampling_note(camera_pixels: float, *, bin: int, sampling: str) -> str:
    """Returns a warning if camera pixels are too coarse, or so fine that light is wasted; else "".

    `camera_pixels` is their number in the finest period of the pattern, after binning.
    """
    said = f"{camera_pixels:.3g} camera pixels in the pattern's finest period"
    if camera_pixels < CAMERA_NYQUIST:
        return (
            f"{said}: fewer than {CAMERA_NYQUIST:g} cannot hold it; take a longer focal length, "
            "smaller camera pixels, or a smaller --bin"
        )
    more = useful_bin(camera_pixels)
    if sampling == "area" or more == 1:
        return ""
    return f"{said}, of which one is read: --bin {bin * more} would use {more**2} times the light"


def to_sensor(
    light: Float[np.ndarray, "h w"],
    geometry: Geometry,
    sensor: tuple[int, int],
    *,
    sampling: str,
    axis: tuple[int, int],
    spacing: float | None = None,
    pixel_side: float = 0.0,
) -> Float[np.ndarray, "sh sw"]:
    """Resamples one frame to the model's grid.

    Args:
        light: Counts, after `Window.crop` and `join`.
        geometry: Geometry after `in_window`.
        sensor: (sh, sw) of the model.
        sampling: "points" or "area"; see the module.
        axis: Optical axis of the model (`camera.Camera.axis`).
        spacing: Spacing of the model's samples (`pixel_envelope`); None if they span the whole
            pattern.
        pixel_side: Side of the mask's pixels, whose envelope is divided out; 0 for points.

    Returns:
        Counts per model sample.
    """
    spline = frame_spline(light, sampling=sampling)
    sampled = sample_spline(spline, geometry, sensor, sampling=sampling)
    apart = 1 / sensor[0] if spacing is None else spacing
    sampled = sampled / pixel_envelope(sensor_points(sensor), apart, pixel_side)
    return uncentred(sampled, axis)


def frame_spline(light: Float[np.ndarray, "h w"], *, sampling: str) -> Float[np.ndarray, "h w"]:
    """Returns the coefficients of the cubic spline from which a frame is read.

    For "points" the integral of the spline over each camera pixel is the count of that pixel: a
    B-spline of degree 3, integrated over a pixel, is the B-spline of degree 4 (Unser, 1999). This
    undoes the averaging over the pixels. For "area", which integrates itself, the values of the
    spline at the middles of the pixels are the counts.
    """
    degree = SPLINE + 1 if sampling == "points" else SPLINE
    return ndimage.spline_filter(light, order=degree, mode="mirror")


def sample_spline(
    spline: Float[np.ndarray, "h w"],
    geometry: Geometry,
    sensor: tuple[int, int],
    *,
    sampling: str = "points",
) -> Float[np.ndarray, "sh sw"]:
    """Reads coefficients of `frame_spline` at the model's samples, zero at [sh // 2, sw // 2].

    "area" adds up ceil(scale) points each way in a model sample. Without rotation, and with a whole
    number of camera pixels in a model sample, these points are the camera's pixels themselves.
    """
    parts = int(np.ceil(geometry.scale - 1e-9)) if sampling == "area" else 1
    offsets = (np.arange(parts) + 0.5) / parts - 0.5
    u = sensor_points(sensor)
    total = np.zeros(sensor)
    for dy in offsets:
        for dx in offsets:
            moved = u + np.array([dy, dx]).reshape(2, 1, 1)
            total += ndimage.map_coordinates(
                spline, geometry.camera_points(moved), order=SPLINE, mode="mirror", prefilter=False
            )
    return total * (geometry.scale / parts) ** 2
