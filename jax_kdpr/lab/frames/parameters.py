"""Declares which numbers of a bench's optics can be fitted, and builds cameras with them."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.options import changed, shallow
from jax_kdpr.optics.beam import AberrationOptions, Beam, IlluminationOptions
from jax_kdpr.optics.camera import Camera

UNDETERMINED = 1.0  # error bar, in widths, beyond which a parameter is not determined
FIRST_ZERO_ORDER = 0.01  # a start with a derivative, which 0 does not have

Options = dict[str, dict[str, Any]]  # of the config, by section


class Parameter(NamedTuple):
    """One number of the optics: an option of the config, or the n-th number of a tuple there."""

    section: str
    option: str
    width: float  # how far a bench may well be off, in its unit; of a factor, in its logarithm
    number: int | None = None
    factor: bool = False  # whether width * v is the logarithm of the value over its start

    @property
    def name(self) -> str:
        """Name by which the calibration lists it."""
        numbered = "" if self.number is None else f"[{self.number}]"
        return f"{self.section}.{self.option}{numbered}"


def _zernike(*numbers: int) -> tuple[Parameter, ...]:
    """Returns the coefficients of Zernike polynomials, by Noll's indices."""
    return tuple(Parameter("aberrations", "zernike", 0.5, j - 1) for j in numbers)


FITTED: dict[str, tuple[Parameter, ...]] = {
    "shift": tuple(Parameter("mount", f"shift_{axis}", 0.5) for axis in "yx"),
    "rotation": (Parameter("mount", "rotation", 0.5),),
    "scale": (Parameter("mount", "scale", 0.01),),
    "defocus": _zernike(4),
    "astigmatism": _zernike(5, 6),
    "coma": _zernike(7, 8),
    "spherical": _zernike(11),
    "gain": (Parameter("device", "gain", 0.1, factor=True),),
    "zero_order": (Parameter("device", "zero_order", 1.0, factor=True),),
    "waist": (Parameter("illumination", "waist", 0.3, factor=True),),
    "beam": tuple(Parameter("illumination", "centre", 0.1, number) for number in (0, 1)),
    "offset": (),  # counts of a camera pixel; not an option of the config
}


def is_determined(name: str, value: float, error: float) -> bool:
    """Returns whether a parameter's error bar is below what a bench may well be off."""
    (one,) = (one for many in FITTED.values() for one in many if one.name == name)
    return error < UNDETERMINED * one.width * (abs(value) if one.factor else 1.0)


def fitted_camera(camera: Camera, optics: Options) -> Camera:
    """Returns a camera with other options of its optics; their numbers may be JAX tracers."""
    beam = camera.beam or Beam(camera.size)
    light = changed(beam.illumination, **optics.get("illumination", {}))
    wavefront = changed(beam.aberrations, **optics.get("aberrations", {}))
    beam = dataclasses.replace(beam, illumination=light, aberrations=wavefront)
    is_plain = light == IlluminationOptions() and wavefront == AberrationOptions()
    return dataclasses.replace(
        camera,
        beam=None if is_plain and beam.phases is None else beam,
        device=changed(camera.device, **optics.get("device", {})),
        mount=changed(camera.mount, **optics.get("mount", {})),
    )


def starting_options(camera: Camera, parameters: Sequence[Parameter]) -> Options:
    """Returns the options to fit, at their values in the design; each tuple is long enough.

    Raises:
        InputError: If the camera has no such parameter.
    """
    beam = camera.beam or Beam(camera.size)
    sections = {
        **{"illumination": beam.illumination, "aberrations": beam.aberrations},
        **{"device": camera.device, "mount": camera.mount},
    }
    options: Options = {}
    for one in parameters:
        known = options.setdefault(one.section, {})
        value = known.get(one.option, getattr(sections[one.section], one.option))
        if one.number is not None:
            value = (*value, *[0.0] * (one.number + 1 - len(value)))
        known[one.option] = value
    if "illumination" in options:
        kind = beam.illumination.kind
        if kind not in ("even", "gaussian"):
            raise InputError(
                f"--fit: waist and beam are those of a Gaussian beam, got illumination.kind="
                f"{kind}; leave them out"
            )
        light = shallow(beam.illumination)
        options["illumination"] = {
            **{"kind": "gaussian", "waist": light["waist"], "centre": light["centre"]},
            **options["illumination"],
        }
    if "aberrations" in options:
        options["aberrations"]["diameter"] = beam.aberrations.diameter
    if options.get("device", {}).get("zero_order") == 0.0:
        options["device"]["zero_order"] = FIRST_ZERO_ORDER
    return options


def value_of(one: Parameter, options: Options) -> float:
    """Returns the value of a parameter in options."""
    value = options[one.section][one.option]
    return float(value if one.number is None else value[one.number])
