"""How the samples of a design lie on the camera of a bench: `optics.sampling`, in words."""

import math
from collections.abc import Mapping
from typing import Any

from jax_kdpr.config.schema import Config, samples_a_cycle
from jax_kdpr.core.errors import InputError
from jax_kdpr.lab.bench_file import Modulator
from jax_kdpr.lab.frames.geometry import CAMERA_ENOUGH, useful_bin
from jax_kdpr.lab.frames.measured import mask_fill_factor
from jax_kdpr.optics.propagation import PROPAGATORS, sampling_warnings
from jax_kdpr.optics.sampling import Layout, Sampling, camera_warnings

# Contents of the file that the command geometry writes.
RECORD = {"bench": {"camera_pixel": float}, "sensor_pixel": float, "warnings": [str]}


def known_of(config: Config) -> dict[str, Any]:
    """Returns what a config says of its bench, by flag names of the command geometry."""
    space = config.propagation
    known = {
        "pixels": config.data.size,
        "oversample": samples_a_cycle(config),
        "propagation": space.kind,
    }
    if space.propagator.reads_lengths:
        lengths = {"mask_pitch": space.pitch, "distance": space.distance}
        known |= {"wavelength": space.wavelength, **lengths}
    if (fill_factor := mask_fill_factor(config)) < 1:
        known["fill_factor"] = fill_factor
    return known


def make_layout(given: Mapping[str, Any], known: Mapping[str, Any]) -> Layout:
    """Joins the user's values with those of a run.

    Args:
        given: Values by flag names of the command geometry; None for a flag that is left out.
        known: Values from `known_of`, or none.

    Raises:
        InputError: If a run contradicts a value, or a value is missing or would not be read.
    """
    given = {name: value for name, value in given.items() if value is not None}
    for name in sorted(set(given) & set(known)):
        one, other = given[name], known[name]
        if one != other and (isinstance(one, str) or not math.isclose(one, other, rel_tol=1e-6)):
            raise InputError(
                f"--{name}: it is {one} there, or in --bench, and {other} in the run of --workdir; "
                "train for the bench, correct it, or leave it out"
            )
    values = {"propagation": "far", **given, **known}
    kind = values.pop("propagation")
    length, unread = "focal_length", "distance"
    if PROPAGATORS[kind].reads_lengths:
        length, unread = unread, length
    if unread in values:
        raise InputError(f"--{unread}: is not read with propagation {kind}; give --{length}")
    for name in ("wavelength", length, "mask_pitch", "pixels", "camera_pixel"):
        if name not in values:
            what = "of the mask, or --workdir" if name == "pixels" else "in metres"
            raise InputError(f"--{name}: needed, {what}")
    lengths = {"pitch": values.pop("mask_pitch"), "distance": values.pop(length)}
    return Layout(kind=kind, **lengths, **values)


def warnings_of(layout: Layout, found: Sampling) -> list[str]:
    """Returns warnings of what the model or the camera samples too coarsely."""
    of_model = sampling_warnings(layout.pixels, layout.space, oversample=layout.oversample)
    return [*of_model, *camera_warnings(layout, found)]


def suitable_magnify(layout: Layout, panel: Modulator) -> str:
    """Returns in words how many panel pixels each way may show one mask pixel; empty if unknown.

    With too few the far field is larger than the camera, with too many its finest fringe has fewer
    than `CAMERA_ENOUGH` camera pixels, or the masks are larger than the panel.
    """
    if panel.pixel_pitch is None or PROPAGATORS[layout.kind].reads_lengths:
        return ""
    extent = layout.wavelength * layout.distance / panel.pixel_pitch  # of a mask of panel pixels
    chip, sides = layout.camera_pixels, panel.panel
    least = math.ceil(extent / (min(chip) * layout.camera_pixel)) if chip else 1
    most = int(extent / (layout.pixels * CAMERA_ENOUGH * layout.camera_pixel))
    most = min(most, min(sides) // layout.pixels) if sides else most
    return f"{least} to {most}" if least <= most else "none: take another lens, or other --pixels"


def table(layout: Layout, found: Sampling, *, magnify: str = "") -> str:
    """Lays out the numbers, one per line."""
    length = "distance" if PROPAGATORS[layout.kind].reads_lengths else "focal length"
    fits = {None: "", True: ", fits the chip", False: ", does not fit the chip"}[found.fits]
    whole = found.whole_ratio
    lines = {
        "model sample on the camera": f"{found.sensor_pixel * 1e6:.4g} um",
        "camera pixels per model sample": f"{found.camera_pixels_per_sensor_pixel:.4g}",
        "pattern": f"{found.extent * 1e3:.4g} mm, {found.extent_camera_pixels:.0f} camera pixels"
        + fits,
        f"camera pixel for {whole} to a sample": f"{found.whole_ratio_camera_pixel * 1e6:.4g} um",
        "finest fringe": f"{found.finest_fringe * 1e6:.4g} um",
        "oversample that the camera resolves": str(found.oversample_resolved or "none: too coarse"),
        "--bin for calibrate and reconstruct": str(useful_bin(found.camera_pixels_per_fringe)),
        "camera pixel: contrast left of the finest fringe": f"{found.camera_pixel_factor:.3f}",
    }
    if found.whole_ratio_distance is not None:
        lines[f"{length} for {whole} to a sample"] = f"{found.whole_ratio_distance:.6g} m"
    if found.mask_pixel_factor is not None:
        lines["mask pixel: intensity left at the edge"] = f"{found.mask_pixel_factor:.3f}"
    if magnify:
        lines["magnify that suits panel and camera"] = magnify
    width = max(map(len, lines))
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in lines.items())
