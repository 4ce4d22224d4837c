"""The beam that lights the object: its brightness and its wavefront, both fixed and known.

    incident field = amplitude e^{+j wavefront}   [h w], the mean of amplitude^2 is 1

The incident field multiplies the object's field. The recovery treats it as part of the operator, so
the object that it looks for stays the same: a phase object has modulus 1, whatever the beam.
Aberrations are those up to the plane of the mask, or of its image. A lens behind a diffracting mask
has other aberrations, which no factor here can stand for. Beam and polynomials are centred on the
middle of the square, (N - 1) / 2, while `propagation` has its axis on pixel N // 2.
"""

import dataclasses
import hashlib

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float
from PIL import Image

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import Range
from jax_kdpr.core.options import changed, option, section
from jax_kdpr.data.pages.opening import read_named
from jax_kdpr.optics.misalignment import GAUSSIAN, Perturbation
from jax_kdpr.optics.zernike import ROUND_OBJECT, from_centre, zernike

OF_A_FILE = ("illumination.kind", ("amplitude", "intensity"))


@section
class IlluminationOptions:
    """How bright the light is where it meets the object: `optics.beam`."""

    kind: str = option(
        "even",
        "beam profile; amplitude and intensity are read from illumination.file",
        choices=("even", "gaussian", "amplitude", "intensity"),
    )
    waist: float = option(
        1.0,
        "radius at which the amplitude of a Gaussian beam is 1/e",
        unit="sides of the object",
        within=Range(0.05, 1000),
        when=GAUSSIAN,
    )
    centre: tuple[float, ...] = option(
        (0.0, 0.0),
        "row and column of a Gaussian beam's middle, from the object's",
        unit="sides of the object",
        within=Range(-10, 10),
        length=Range(2, 2),
        when=GAUSSIAN,
    )
    file: str = option(
        "", "picture of the beam in the object plane, cut to the object", when=OF_A_FILE
    )


@section
class AberrationOptions:
    """Wavefront of the light up to the mask, as seen from the object: `optics.beam`."""

    zernike: tuple[float, ...] = option(
        (),
        "coefficients of Noll's polynomials 1, 2, 3, ...; 4 is defocus",
        unit="radians rms",
        within=Range(-1000, 1000),
        length=Range(0, 105),
    )
    diameter: float = option(
        2 * ROUND_OBJECT,
        "of the polynomials' disc; the default encloses the square object",
        unit="sides of the object",
        within=Range(0.1, 100),
    )
    file: str = option("", "phases in radians (float NPY or TIFF) to add")


@dataclasses.dataclass(frozen=True)
class Plane:
    """An array that is compared by its digest; it keys compiled programs, as an option does."""

    values: Float[np.ndarray, "*k h w"] = dataclasses.field(compare=False, repr=False)
    digest: str

    @classmethod
    def of(cls, values: Float[np.ndarray, "*k h w"]) -> "Plane":
        """Makes a plane of finite values."""
        values = np.ascontiguousarray(values, np.float32)
        return cls(values, hashlib.sha256(values.tobytes()).hexdigest())


@dataclasses.dataclass(frozen=True)
class Beam:
    """The beam of one bench; make it with `read_beam`."""

    size: int  # height and width of the object, pixels
    illumination: IlluminationOptions = dataclasses.field(default_factory=IlluminationOptions)
    aberrations: AberrationOptions = dataclasses.field(default_factory=AberrationOptions)
    picture: Plane | None = None  # contents of illumination.file, amplitude or intensity
    phases: Plane | None = None  # contents of aberrations.file, radians

    @property
    def planes(self) -> dict[str, Plane]:
        """Contents of the files, by the section of the config that named them."""
        planes = {"illumination": self.picture, "aberrations": self.phases}
        return {name: plane for name, plane in planes.items() if plane is not None}

    def in_words(self) -> str:
        """Returns a description for one line, whose numbers reveal a wrong unit."""
        light = self.illumination
        words = f"{light.kind} beam"
        if light.kind == "gaussian":
            words += f", waist {light.waist:g} sides of the object"
        wavefront = np.asarray(self.wavefront())
        if not wavefront.any():
            return words
        extent = f"{wavefront.min():.3g} to {wavefront.max():.3g} rad"
        return f"{words}, wavefront {extent} ({np.std(wavefront):.3g} rad rms)"

    def warnings(self) -> list[str]:
        """Returns a warning where the wavefront is sampled too coarsely for what the bench has."""
        wavefront = np.asarray(self.wavefront())
        steps = [np.abs(np.diff(wavefront, axis=axis)).max() for axis in (0, 1)]
        if max(steps) <= np.pi:
            return []
        return [
            f"aberrations: the wavefront turns by {max(steps):.2g} rad from one pixel to the next, "
            "more than the pi that pixels can hold; raise data.size"
        ]

    def incident(self, by: Perturbation | None = None) -> Complex[Array, "h w"]:
        """Returns the field that meets the object.

        Args:
            by: Errors of the bench: place and width of a Gaussian beam, and the wavelength. The
                total light on the object stays the same (whoever reads frames scales them so). A
                longer wavelength has fewer waves of wavefront.
        """
        wavefront = jnp.asarray(self.wavefront())
        if by is not None:
            wavefront = wavefront / (1.0 + by.wavelength)
        return self.amplitude(by) * jnp.exp(1j * wavefront)

    def amplitude(self, by: Perturbation | None = None) -> Float[Array, "h w"]:
        """Returns the modulus of `incident`."""
        match self.illumination.kind:
            case "even":
                amplitude = jnp.ones((self.size, self.size))
            case "gaussian":
                by = Perturbation() if by is None else by
                rows, columns = (jnp.asarray(places) for places in from_centre(self.size))
                y, x = self.illumination.centre
                squared = jnp.square(rows - y - by.beam_y) + jnp.square(columns - x - by.beam_x)
                waist = self.illumination.waist * jnp.exp(by.waist)
                amplitude = jnp.exp(-squared / jnp.square(waist))
            case _:
                if self.picture is None:
                    raise ValueError("beam: its picture has not been read; make it with read_beam")
                amplitude = jnp.asarray(self.picture.values)
                if self.illumination.kind == "intensity":
                    amplitude = jnp.sqrt(amplitude)
        return amplitude / jnp.sqrt(jnp.mean(jnp.square(amplitude)))

    def wavefront(self) -> Float[np.ndarray, "h w"] | Float[Array, "h w"]:
        """Returns the phase of `incident` without errors, in radians."""
        radius = self.aberrations.diameter / 2
        phase = np.zeros((self.size, self.size)) if self.phases is None else self.phases.values
        for number, radians in enumerate(self.aberrations.zernike, start=1):
            phase = phase + radians * zernike(number, self.size, radius=radius)
        return phase


def read_beam(
    illumination: IlluminationOptions, aberrations: AberrationOptions, *, size: int
) -> Beam | None:
    """Returns the beam of these options, with the contents of their files.

    A picture must be square. It is resized to the object's size where needed, bilinearly and with
    antialiasing. Its unit does not matter. Phases must have the object's size.

    Returns:
        None for a plane wave of even brightness: there is nothing to multiply by.

    Raises:
        InputError: If a file is missing or cannot be read, a picture is not square, phases do not
            have the object's size, a picture has negative or no light, or a number is NaN or
            infinite.
    """
    picture = phases = None
    if illumination.file:
        picture = Plane.of(_read_picture(illumination.file, size))
    if aberrations.file:
        phases = Plane.of(_read_plane("aberrations.file", aberrations.file))
        if phases.values.shape != (size, size):
            raise InputError(
                f"aberrations.file: expected {size} x {size} phases, one a pixel of the object, "
                f"got {' x '.join(map(str, phases.values.shape))}; resample it, or set data.size"
            )
    if illumination.kind == "even" and not aberrations.zernike and phases is None:
        return None
    # Beams are compared by the contents of their files, not by the paths.
    light, wavefront = changed(illumination, file=""), changed(aberrations, file="")
    return Beam(size, light, wavefront, picture, phases)


def _read_picture(path: str, size: int) -> Float[np.ndarray, "h w"]:
    named = "illumination.file"
    picture = _read_plane(named, path)
    height, width = picture.shape
    if height != width:
        raise InputError(
            f"{named}: expected a square picture, the object's, got {height} x {width}; cut it to "
            "the object"
        )
    if picture.min() < 0 or picture.max() <= 0:
        raise InputError(
            f"{named}: expected light, no value below 0 and some above, got "
            f"{picture.min():.3g} to {picture.max():.3g}; after the dark frame is subtracted, set "
            "what is below 0 to 0"
        )
    if height == size:
        return picture
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BILINEAR))


def _read_plane(named: str, path: str) -> Float[np.ndarray, "h w"]:
    pages = read_named(named, path)
    if len(pages) != 1:
        raise InputError(f"{named}: expected one picture, got {len(pages)} in {path!r}; save one")
    if named == "aberrations.file" and pages.dtype.kind != "f":
        raise InputError(
            f"{named}: expected phases in radians as floats, got {pages.dtype}; convert them"
        )
    plane = pages[0].astype(np.float32)
    if not np.all(np.isfinite(plane)):
        raise InputError(f"{named}: expected finite numbers, got NaN or infinity in {path!r}")
    return plane
