"""The reader of everybody's files, against the programs that wrote them."""

import io
import itertools
import os
import struct
import zlib

import hdf5plugin
import numpy as np
import pytest
import tifffile
from astropy.io import fits
from helpers import packed_tiff, rejection
from page_files import hdf5, matlab, pages_of, refused, save_hdf5
from PIL import Image

from jax_kdpr.data.image_files import Preparation
from jax_kdpr.data.inspection import read_images
from jax_kdpr.data.pages.opening import open_pages, read_stack
from jax_kdpr.data.pages.stacks import read_arrays
from jax_kdpr.lab.frames.reading import list_frames

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (12, 10)).astype(np.uint8)
COUNTS = RNG.integers(0, 65536, (12, 10)).astype(np.uint16)
FLOATS = RNG.random((12, 10)).astype(np.float32)
COLOURS = RNG.integers(0, 65536, (12, 10, 3)).astype(np.uint16)
STACK = RNG.integers(0, 65536, (5, 12, 10)).astype(np.uint16)
OPAQUE = np.full((12, 10, 1), 65535)
PLANAR = {"contig": COLOURS, "separate": np.moveaxis(COLOURS, -1, 0)}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, bits, colour, rows: bytes, *more: bytes) -> bytes:
    """A PNG of unfiltered rows, each after a 0; by its specification."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + data


def deep_png(*channels: np.ndarray, see_through=()) -> bytes:
    pixels = np.dstack(channels)
    height, width, count = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    more = [chunk(b"tRNS", struct.pack(f">{len(see_through)}H", *see_through))]
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[count]
    return png(width, height, 16, colour, rows, *more[: len(see_through)])


def content(data: bytes):
    return lambda path: path.write_bytes(data)


def picture(image, **options):
    return lambda path: image.save(path, **options)


def tiff(pixels, **options):
    return lambda path: tifffile.imwrite(path, pixels, **options)


def save_fits(path, array):
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(array)]).writeto(path)


SAVE = {".npy": np.save, ".npz": np.savez, ".nxs": save_hdf5, ".fits": save_fits}
ARRAYS = {
    "one": (FLOATS, [FLOATS]),
    "one and a channel": (FLOATS[..., None], [FLOATS]),
    "one of colours": (COLOURS, [COLOURS]),
    "a stack": (STACK, STACK),
    "a stack of one": (STACK[:1], STACK[:1]),
    "a stack and a channel": (STACK[..., None], STACK),
    "a stack of colours": (np.stack([COLOURS, COLOURS]), [COLOURS] * 2),
    "equal colours": (np.repeat(STACK[0][..., None], 3, axis=-1), STACK[:1]),
    "big-endian": (STACK.astype(">u2"), STACK),
    "column by column": (np.asfortranarray(STACK), STACK),
}


@pytest.mark.parametrize("suffix", SAVE)
@pytest.mark.parametrize("name", ARRAYS)
def test_the_first_axis_of_an_array_counts_and_the_last_may_be_channels(tmp_path, name, suffix):
    array, wanted = ARRAYS[name]
    SAVE[suffix](tmp_path / f"a{suffix}", array)
    found = pages_of(tmp_path / f"a{suffix}{'::/entry/data' * (suffix == '.nxs')}")
    assert all(page.dtype.isnative and page.dtype == wanted[0].dtype for page in found)
    np.testing.assert_array_equal(np.stack(found), np.stack(wanted))


@pytest.mark.parametrize("shape", [(60, 80, 9), (64, 64, 100), (60, 80, 2)])
def test_a_stack_on_the_last_axis_is_refused_and_can_be_said(tmp_path, shape):
    array = np.zeros(shape, np.uint8)
    np.save(tmp_path / "a.npy", array)
    assert str(shape) in (said := refused(tmp_path / "a.npy")) and "[..., None]" in said
    for told in (array[..., None], np.moveaxis(array, -1, 0)[..., None]):
        np.save(tmp_path / "a.npy", told)
        assert len(pages_of(tmp_path / "a.npy")) == len(told)


def save_thumbnails(path):
    with tifffile.TiffWriter(path) as file:
        file.write(BYTES[:6, :5], subfiletype=1)
        file.write(BYTES)
        file.write(BYTES[:3, :2], subfiletype=1)


def of_type(kind):
    return (COUNTS.astype(kind) - kind(7)).astype(kind)


def compressed_fits(path):
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(COUNTS)]).writeto(path)


def bitshuffled(path):
    filters = hdf5plugin.Bitshuffle(cname="lz4")
    save_hdf5(path, STACK, chunks=(1, 12, 10), compression=filters)


def inverted_palette(path):
    image = Image.fromarray(255 - BYTES, mode="P")
    image.putpalette([255 - level for level in range(256) for _ in range(3)])
    image.save(path)


COLOUR_MAP = np.resize([7, *range(1, 256)], (256, 3)).astype(np.uint8)


def coloured_palette(path):
    image = Image.fromarray(BYTES, mode="P")
    image.putpalette(COLOUR_MAP.tobytes())
    image.save(path)


def pgm_counts(top: int) -> np.ndarray:
    return (COUNTS // (65536 // (top + 1))).astype("u2" if top > 255 else "u1")


def pgm(top: int) -> bytes:
    return b"P5\n10 12\n%d\n" % top + pgm_counts(top).astype(">u2" if top > 255 else "u1").tobytes()


LZW = {"compression": "tiff_lzw"}
PAGES = {"save_all": True, "append_images": [Image.fromarray(frame) for frame in STACK[1:]]}
PREDICTED = {"compression": "tiff_lzw", "tiffinfo": {317: 3}}  # of floats


OTHERS = {"photometric": "rgb", "metadata": None}  # as other programs write colours
READ = [
    *[
        ("a.tif", tiff(p, **OTHERS, planarconfig=c, compression=z), [COLOURS])
        for (c, p), z in itertools.product(PLANAR.items(), (None, "zlib"))
    ],
    *[
        ("a.png", content(deep_png(pixels, *alpha)), [pixels])
        for pixels, alpha in itertools.product((COLOURS, COUNTS), ((), (OPAQUE,)))
    ],
    *[
        (f"a.{suffix}", picture(Image.fromarray(BYTES).convert(mode)), [BYTES])
        for mode, suffix in itertools.product(("LA", "RGBA", "RGB", "P"), ("png", "tif"))
    ],
    *[
        ("a.tif", tiff(of_type(kind), compression=z), [of_type(kind)])
        for kind, z in itertools.product((np.int16, np.uint32, np.int32, float), (None, "zlib"))
    ],
    ("a.tif", save_thumbnails, [BYTES]),
    ("a.tif", picture(Image.fromarray(FLOATS), **PREDICTED), [FLOATS]),
    (
        "a.tif",
        picture(Image.fromarray(FLOATS), **PREDICTED | {"compression": "tiff_adobe_deflate"}),
        [FLOATS],
    ),
    *[
        ("a.tif", tiff(frames, photometric=zero, **kind), STACK)
        for frames, zero in ((STACK, "minisblack"), (65535 - STACK, "miniswhite"))
        for kind in ({}, {"truncate": True})  # a directory a frame, or one for all
    ],
    ("a.tif", tiff(STACK, imagej=True, truncate=True), STACK),
    ("a.tif", picture(Image.fromarray(STACK[0]), **LZW, **PAGES), STACK),
    ("a.tif", picture(Image.fromarray(65535 - COUNTS), **LZW, tiffinfo={262: 0}), [COUNTS]),
    *[(f"a.{end}", inverted_palette, [BYTES]) for end in ("tif", "png", "bmp")],
    *[(f"a.{end}", picture(Image.fromarray(BYTES)), [BYTES]) for end in ("bmp", "png")],
    ("a.tif", coloured_palette, [COLOUR_MAP[BYTES]]),
    *[("a.pgm", content(pgm(top)), [pgm_counts(top)]) for top in (255, 4095, 65535)],
    ("a.fits", lambda path: fits.PrimaryHDU(STACK).writeto(path), STACK),  # unsigned: with BZERO
    ("a.fits", compressed_fits, [COUNTS]),
    ("a.h5", bitshuffled, STACK),
]


@pytest.mark.filterwarnings("ignore:.*are stored as RGB:DeprecationWarning")
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_a_few_frames_that_tifffile_declares_to_be_colours_are_frames(tmp_path, count, compression):
    frames = np.stack([COUNTS + k for k in range(count)])
    tifffile.imwrite(tmp_path / "a.tif", frames, compression=compression)
    np.testing.assert_array_equal(pages_of(tmp_path / "a.tif"), frames)


def test_colours_in_planes_are_one_image_of_a_folder(tmp_path):
    (tmp_path / "own").mkdir()
    for number, dtype in enumerate(("u1", "u2")):
        planes = np.moveaxis(COLOURS, -1, 0).astype(dtype)
        tifffile.imwrite(tmp_path / "own" / f"{number}.tif", planes, photometric="rgb")
        tifffile.imwrite(tmp_path / f"{number}.tif", np.moveaxis(planes, 0, -1), photometric="rgb")
        found = read_images(tmp_path / "own", Preparation(8)).images[-1]
        wanted = read_images(tmp_path / f"{number}.tif", Preparation(8), of_frames=True).images[0]
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("photometric", ["separated", "miniswhite"])
def test_other_planes_are_refused(tmp_path, photometric):
    planes = np.stack([COUNTS] * 4)
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric=photometric, planarconfig="separate")
    refused(tmp_path / "a.tif")


@pytest.mark.parametrize(("name", "write", "wanted"), READ)
def test_what_a_file_holds_is_read(tmp_path, name, write, wanted):
    write(tmp_path / name)
    found = pages_of(tmp_path / name)
    assert found[0].dtype == wanted[0].dtype
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate"])
def test_orientation_tags_are_not_followed_but_told(tmp_path, orientation, compression):
    path = tmp_path / "a.tif"
    Image.fromarray(BYTES).save(path, tiffinfo={274: orientation}, compression=compression)
    np.testing.assert_array_equal(pages_of(path), [BYTES])
    with open_pages(path) as pages:
        assert pages.turned == (orientation != 1)


READERS = {
    "frames": lambda path: list_frames(str(path)),
    "mask": read_stack,
    "images": lambda path: read_images(path, Preparation(12), of_frames=True),
}


@pytest.mark.parametrize("reader", READERS)
def test_exif_is_not_followed_but_told(tmp_path, reader, capsys):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(BYTES).save(tmp_path / "a.png", exif=exif)
    with open_pages(tmp_path / "a.png") as pages:
        assert pages.turned
        np.testing.assert_array_equal(pages.read(0), BYTES)
    READERS[reader](tmp_path / "a.png")
    assert "1 file(s) of" in (said := capsys.readouterr().err) and "as stored" in said


@pytest.mark.parametrize("bits", [2, 4, 12])
def test_tiff_of_few_bits(tmp_path, bits):
    values = RNG.integers(0, 2**bits, (12, 16))
    (tmp_path / "a.tif").write_bytes(packed_tiff(values, bits))
    with open_pages(tmp_path / "a.tif") as pages:
        assert pages.top == 2**bits - 1
        np.testing.assert_array_equal(pages.read(0), values)


NOISE = RNG.integers(0, 256, (40, 40), np.uint8)
WHOLE = {
    "a.png": picture(Image.fromarray(NOISE)),
    "a.tif": tiff(NOISE, compression="zlib"),
    "a.npy": lambda path: np.save(path, NOISE),
    "a.npz": lambda path: np.savez(path, NOISE),
    "a.h5": lambda path: save_hdf5(path, NOISE),
    "a.mat": matlab(frames=NOISE),
}


@pytest.mark.parametrize("name", WHOLE)
def test_truncated_and_foreign_files_are_named(tmp_path, name):
    path = tmp_path / name
    WHOLE[name](path)
    whole = path.read_bytes()
    parts = [whole[: int(kept * len(whole))] for kept in (0.0, 0.002, 0.04, 0.5, 0.9)]
    for wrong in (*parts, b"this is no image" * 8, b"PK\3\4" + b"\1" * 99):
        path.write_bytes(wrong)
        refused(path)


def npy_header(*shape) -> bytes:
    file = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


@pytest.mark.parametrize(
    "damage",
    [
        content(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-30]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"\x93NUMPY", b"\x93NUMBY")),
        lambda path: np.savez(path, images=np.zeros(3)),
        lambda path: np.savez(path, images=np.zeros(3), phases=np.array(["a", None])),
        lambda path: (path.unlink(), os.mkfifo(path)),
        lambda path: path.unlink(),
    ],
)
def test_damaged_arrays_of_ours_are_one_line(tmp_path, damage):
    path = tmp_path / "samples.npz"
    arrays = {"images": np.arange(6.0).reshape(2, 3), "phases": np.ones(4)}
    np.savez(path, **arrays)
    found = read_arrays(path, ["phases", "images"])
    assert all(np.array_equal(found[name], array) for name, array in arrays.items())
    damage(path)
    assert "samples.npz: " in rejection(read_arrays, path, ["images", "phases"])


def almost_opaque(mode):
    image = Image.fromarray(BYTES).convert(mode)
    image.putpixel((3, 4), (*image.getpixel((3, 4))[:-1], 254))
    return picture(image)


def two_of_fits(path):
    fits.HDUList([fits.PrimaryHDU(COUNTS), fits.ImageHDU(COUNTS)]).writeto(path)


ANIMATED = {"save_all": True, "append_images": [Image.fromarray(BYTES // 2)]}
PAIR = {"photometric": "minisblack", "extrasamples": ["unspecified"]}
PALETTE = Image.fromarray(BYTES).convert("P")
ALPHA = 65535 - (COUNTS == COUNTS[0, 0])
SEEN_THROUGH = "transparent"


@pytest.mark.parametrize(
    ("name", "write", "says"),
    [
        ("a.png", almost_opaque("LA"), SEEN_THROUGH),
        ("a.png", almost_opaque("RGBA"), SEEN_THROUGH),
        ("a.png", picture(PALETTE, transparency=int(BYTES[0, 0])), SEEN_THROUGH),
        ("a.png", content(deep_png(COUNTS, see_through=[COUNTS[0, 0]])), SEEN_THROUGH),
        ("a.png", content(deep_png(COLOURS, see_through=COLOURS[0, 0])), SEEN_THROUGH),
        ("a.png", content(deep_png(COUNTS, ALPHA)), SEEN_THROUGH),
        ("a.png", picture(Image.fromarray(BYTES), **ANIMATED), "several"),
        ("a.pgm", content(2 * pgm(4095)), "one picture"),
        ("a.pgm", content(b"P2 1 1 255 7"), "P5"),
        ("a.fits", two_of_fits, "2 images"),
        ("a.npy", lambda path: np.save(path, BYTES[0]), "(10,)"),
        ("a.npy", lambda path: np.save(path, np.array([{}]), allow_pickle=True), "a.npy"),
        ("a.npz", lambda path: np.savez(path, a=BYTES, b=BYTES), "one array"),
        ("a.tif", tiff(np.dstack([BYTES, BYTES // 2]), **PAIR), "2 values"),
        ("a.npy", content(npy_header(10**9, 0, 0)), "(0, 0)"),
        ("a.npy", content(npy_header(100, 10**4, 10**4)), "file size"),
        ("a.h5", hdf5(100, 64, 64), "nothing"),
        ("a.h5", hdf5(100, 12, 10, chunks=(1, 12, 10), written=10), "10 of 100 chunks"),
        ("a.h5", lambda path: hdf5(3, 12, 10, external=[(str(path), 0, 720)])(path), "outside"),
        ("a.png", content(png(17_000, 17_000, 8, 0, b"")), "17000"),
        ("a.tif", tiff(FLOATS, photometric="miniswhite"), "white"),
        *[(f"a.{end}", os.mkfifo, "regular file") for end in ("npy", "png", "tif", "h5", "mat")],
        *[
            (f"a.{end}", lambda path: path.symlink_to("/dev/zero"), "regular file")
            for end in ("npy", "png", "tif", "h5", "mat")
        ],
    ],
)
def test_what_is_no_plain_page_or_declares_too_much_is_refused(tmp_path, name, write, says):
    write(tmp_path / name)
    assert says in refused(tmp_path / name)
