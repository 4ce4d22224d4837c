"""The description of a mask file, which its flags, its sidecar and its readers share."""

import math

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import LENGTHS, Range
from jax_kdpr.core.options import check, option, section

SLM, HEIGHT = "slm", "height"
CONJUGATE, DIRECT = "conjugate", "direct"
SUFFIXES = {
    SLM: (".png", ".tiff", ".bmp"),
    HEIGHT: (".tiff", ".npy", ".csv"),
    "npy": (".npy",),
    "csv": (".csv",),
    "tiff": (".tiff",),
}
OF_SLM, OF_HEIGHT = ("format", (SLM,)), ("format", (HEIGHT,))
PITCH, WAVELENGTH = (
    {"unit": "metres", "within": LENGTHS[kind]} for kind in ("pitch", "wavelength")
)


@section
class MaskFormat:
    """The flags of `export_mask`; 0 and "" take a number or a name from the run or the format."""

    format: str = option("npy", "slm, height, or radians as npy, csv, tiff", choices=(*SUFFIXES,))
    format_file: str = option(
        "", "slm: png, tiff or bmp; height: tiff, npy or csv", when=("format", (SLM, HEIGHT))
    )
    stack: bool = option(
        False, "npy, tiff: all masks in one file [k h w]", when=("format", ("npy", "tiff"))
    )
    sign: str = option(
        CONJUGATE, "conjugate writes p = -phi, direct p = phi", choices=(CONJUGATE, DIRECT)
    )
    flip_vertical: bool = option(False, "exchange top and bottom")
    flip_horizontal: bool = option(False, "exchange left and right")
    rotate: int = option(
        0, "degrees counter-clockwise, a multiple of 90; after the flips", within=Range(-360, 360)
    )
    wavelength: float = option(0.0, "metres; height needs it", **WAVELENGTH)
    mask_pitch: float = option(0.0, "metres from one mask pixel to the next", **PITCH)
    panel: tuple[int, ...] | None = option(
        None,
        "slm: HEIGHTxWIDTH in pixels; default: just the mask",
        within=Range(1, 2**28),
        when=OF_SLM,
    )
    pixel_pitch: float = option(
        0.0, "slm: metres from one panel pixel to the next", **PITCH, when=OF_SLM
    )
    magnify: int = option(
        0,
        "slm: panel pixels a mask pixel, each way; 0: from the pitches, else as trained",
        within=Range(1, 8192, also=0),
        when=OF_SLM,
    )
    tile: bool = option(
        False, "slm: repeat the mask over the panel instead of centring it", when=OF_SLM
    )
    background: int = option(
        0, "slm: gray level around a centred mask", within=Range(0, 2**16 - 1), when=OF_SLM
    )
    bits: int = option(
        8, "slm: bits of a level; above 8 right-justified in 16", within=Range(8, 16), when=OF_SLM
    )
    gray_2pi: int = option(
        0,
        "slm: gray level of phase 2 pi, the same as level 0; 0: 2^bits",
        within=Range(2, 2**24, also=0),
        when=OF_SLM,
    )
    table: tuple[float, ...] = option((), "slm: CSV or NPY of the phase p of each gray level")
    falling: bool = option(
        False, "slm: phase 0 is the brightest level, as in slmsuite", when=OF_SLM
    )
    index: float = option(
        0.0,
        "height: refractive index, in transmission",
        within=Range(1, 10, "(]", also=0),
        when=OF_HEIGHT,
    )
    reflection: bool = option(False, "height: in reflection", when=OF_HEIGHT)
    levels: int = option(
        0, "height: etch levels; 0: any height", within=Range(2, 65536, also=0), when=OF_HEIGHT
    )

    @property
    def suffix(self) -> str:
        """Suffix of its files, with the dot."""
        return f".{self.format_file}" if self.format_file else SUFFIXES[self.format][0]

    @property
    def side(self) -> int:
        """Pixels of the file each way that show one mask pixel."""
        return self.magnify or 1

    @property
    def turn(self) -> int:
        """Gray level of a phase of 2 pi on a panel without a table."""
        return self.gray_2pi or 2**self.bits

    @property
    def gray_levels(self) -> int:
        """Number of levels written; on a panel of more than one turn, those of the first turn."""
        return len(self.table) or min(self.turn, 2**self.bits)

    @property
    def turn_height(self) -> float:
        """Metres of relief that change the phase of the light by 2 pi.

        In transmission, against air, it is lambda / (n - 1): the material delays the light, which
        adds phase (e^{j k n z}), p = 2 pi (n - 1) h / lambda. In reflection it is lambda / 2: a
        surface that is higher by h shortens the path by 2 h, p = -4 pi h / lambda.
        """
        return self.wavelength / (2 if self.reflection else self.index - 1)


def check_format(described: MaskFormat) -> None:
    """Checks that a description is valid by itself.

    Raises:
        InputError: If an option is wrong or missing, or nothing reads it.
    """
    check(described, before="--")
    panel, top = described.panel, 2**described.bits - 1
    if panel is not None and len(panel) != 2:
        raise InputError(f"--panel: expected height and width, got {list(panel)}")
    if described.rotate % 90:
        raise InputError(f"--rotate: expected a multiple of 90 degrees, got {described.rotate}")
    if described.tile and not panel:
        raise InputError("--tile: is read only with --panel; give its size, such as 1080x1920")
    if described.background and (not panel or described.tile):
        raise InputError("--background: is read only with --panel and without --tile; leave it out")
    highest = len(described.table) - 1 if described.table else top
    if described.background > highest:
        raise InputError(
            f"--background: expected a gray level in [0, {highest}], got {described.background}"
        )
    suffixes = SUFFIXES[described.format]
    if described.suffix not in suffixes:
        raise InputError(
            f"--format_file: expected {' or '.join(s[1:] for s in suffixes)} with --format "
            f"{described.format}, got {described.format_file}"
        )
    if described.suffix == ".bmp" and described.bits != 8:
        raise InputError(
            f"--format_file: bmp has 8 bits, got --bits {described.bits}; take png or tiff"
        )
    if len(described.table) > 2**described.bits:
        needed = math.ceil(math.log2(len(described.table)))
        raise InputError(
            f"--bits: {described.bits} bits have {top + 1} gray levels, the table has "
            f"{len(described.table)}; give --bits {needed}"
        )
    for name in ("gray_2pi", "falling"):
        if described.table and getattr(described, name):
            raise InputError(
                f"--{name}: the phases of the gray levels come from --table, or the device.table "
                "of the run; leave it out"
            )
    if described.format == HEIGHT and not described.wavelength:
        raise InputError("--wavelength: a height needs it, in metres, such as 635e-9")
    if described.format == HEIGHT and described.reflection == (described.index != 0):
        raise InputError(
            "--index: expected the material's index for a mask in transmission, or --reflection; "
            f"got {'both' if described.reflection else 'neither'}"
        )
