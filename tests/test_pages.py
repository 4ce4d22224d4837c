"""The reader of everybody's files, against the programs that wrote them."""

import io
import os
import struct
import zipfile
import zlib

import h5py
import numpy as np
import pytest
import tifffile
from helpers import packed_tiff, rejection
from PIL import Image

from jax_kdpr.data.image_files import Preparation, read_images
from jax_kdpr.data.pages.opening import open_pages, read_stack
from jax_kdpr.data.pages.stacks import read_arrays
from jax_kdpr.lab.frames.reading import list_frames

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (12, 10)).astype(np.uint8)
COUNTS = RNG.integers(0, 65536, (12, 10)).astype(np.uint16)
FLOATS = RNG.random((12, 10)).astype(np.float32)
COLOURS = RNG.integers(0, 65536, (12, 10, 3)).astype(np.uint16)
STACK = RNG.integers(0, 65536, (5, 12, 10)).astype(np.uint16)


def pages_of(path) -> list[np.ndarray]:
    name, _, dataset = str(path).partition("::")
    with open_pages(type(path)(name), dataset) as pages:
        return [pages.read(page) for page in range(pages.count)]


def refused(path) -> str:
    message = rejection(pages_of, path)
    assert path.name.partition("::")[0] in message
    return message


def images_of(path):
    return read_images(path, Preparation(12), of_frames=True)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, bits, colour, rows: bytes, *more: bytes) -> bytes:
    """A PNG of unfiltered rows, each after a 0; by its specification."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(rows))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(more) + data + chunk(b"IEND", b"")
    )


def deep_png(channels: np.ndarray, *more: bytes) -> bytes:
    height, width, count = channels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in channels)
    return png(width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[count], rows, *more)


ARRAYS = {
    "one": (FLOATS, [FLOATS]),
    "one and a channel": (FLOATS[..., None], [FLOATS]),
    "one of colours": (COLOURS, [COLOURS]),
    "a stack": (STACK, list(STACK)),
    "a stack of one": (STACK[:1], [STACK[0]]),
    "a stack and a channel": (STACK[..., None], list(STACK)),
    "a stack of colours": (np.stack([COLOURS, COLOURS]), [COLOURS] * 2),
    "equal colours": (np.repeat(STACK[0][..., None], 3, axis=-1), [STACK[0]]),
    "big-endian": (STACK.astype(">u2"), list(STACK)),
    "column by column": (np.asfortranarray(STACK), list(STACK)),
}


def save_hdf5(path, array):
    with h5py.File(path, "w") as file:
        file["entry/data"] = array


def save_fits(path, array):
    fits = pytest.importorskip("astropy.io.fits")
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(array)]).writeto(path)


SAVE = {".npy": np.save, ".npz": np.savez, ".nxs": save_hdf5, ".fits": save_fits}


@pytest.mark.parametrize("suffix", SAVE)
@pytest.mark.parametrize("name", ARRAYS)
def test_the_first_axis_of_an_array_counts_and_the_last_may_be_channels(tmp_path, name, suffix):
    array, wanted = ARRAYS[name]
    SAVE[suffix](tmp_path / f"a{suffix}", array)
    found = pages_of(tmp_path / f"a{suffix}{'::/entry/data' * (suffix == '.nxs')}")
    assert all(page.dtype.isnative and page.dtype == wanted[0].dtype for page in found)
    np.testing.assert_array_equal(np.stack(found), np.stack(wanted))


@pytest.mark.parametrize("shape", [(60, 80, 9), (64, 64, 100), (480, 640, 100), (60, 80, 2)])
def test_a_stack_on_the_last_axis_is_refused_and_can_be_said(tmp_path, shape):
    array = np.zeros(shape, np.uint8)
    np.save(tmp_path / "a.npy", array)
    assert str(shape) in refused(tmp_path / "a.npy") and "[..., None]" in refused(
        tmp_path / "a.npy"
    )
    for told in (array[..., None], np.moveaxis(array, -1, 0)[..., None]):
        np.save(tmp_path / "a.npy", told)
        assert len(pages_of(tmp_path / "a.npy")) == len(told)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_colours_of_a_tiff_are_one_page(tmp_path, planar, compression):
    channels = COLOURS if planar == "contig" else np.moveaxis(COLOURS, -1, 0)
    tifffile.imwrite(
        tmp_path / "a.tif",
        channels,
        photometric="rgb",
        planarconfig=planar,
        compression=compression,
    )
    np.testing.assert_array_equal(pages_of(tmp_path / "a.tif"), [COLOURS])


@pytest.mark.parametrize("alpha", [False, True])
def test_png_colours_keep_16_bits(tmp_path, alpha):
    opaque = np.full((12, 10, 1), 65535)
    parts = [opaque] * alpha
    (tmp_path / "a.png").write_bytes(deep_png(np.concatenate([COLOURS, *parts], axis=-1)))
    np.testing.assert_array_equal(pages_of(tmp_path / "a.png"), [COLOURS])
    (tmp_path / "a.png").write_bytes(deep_png(np.concatenate([COUNTS[..., None], *parts], axis=-1)))
    np.testing.assert_array_equal(pages_of(tmp_path / "a.png"), [COUNTS])


def write_alpha(mode):
    def write(path):
        image = Image.fromarray(BYTES).convert(mode)
        image.putpixel((3, 4), (*image.getpixel((3, 4))[:-1], 254))
        image.save(path)

    return write


def write_see_through_palette(path):
    Image.fromarray(BYTES).convert("P").save(path, transparency=int(BYTES[0, 0]))


def write_see_through_grey(path):
    value = struct.pack(">H", int(COUNTS[0, 0]))
    path.write_bytes(deep_png(COUNTS[..., None], chunk(b"tRNS", value)))


def write_see_through_colour(path):
    value = struct.pack(">HHH", *map(int, COLOURS[0, 0]))
    path.write_bytes(deep_png(COLOURS, chunk(b"tRNS", value)))


def write_deep_alpha(path):
    path.write_bytes(deep_png(np.stack([COUNTS, 65535 - (COUNTS == COUNTS[0, 0])], axis=-1)))


@pytest.mark.parametrize(
    "write",
    [
        write_alpha("LA"),
        write_alpha("RGBA"),
        write_see_through_palette,
        write_see_through_grey,
        write_see_through_colour,
        write_deep_alpha,
    ],
)
def test_a_transparent_pixel_is_refused(tmp_path, write):
    write(tmp_path / "a.png")
    assert "transparent" in refused(tmp_path / "a.png")


@pytest.mark.parametrize("mode", ["LA", "RGBA", "RGB", "P"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_opaque_grey_is_grey_in_any_mode(tmp_path, mode, suffix):
    Image.fromarray(BYTES).convert(mode).save(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(pages_of(tmp_path / f"a{suffix}"), [BYTES])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    "options", [{}, {"compression": "tiff_lzw"}, {"compression": "tiff_deflate"}]
)
def test_orientation_tags_are_not_followed_but_told(tmp_path, orientation, options):
    path = tmp_path / "a.tif"
    Image.fromarray(BYTES).save(path, tiffinfo={274: orientation}, **options)
    np.testing.assert_array_equal(pages_of(path), [BYTES])
    with open_pages(path) as pages:
        assert pages.turned == (orientation != 1)


READERS = {"frames": lambda path: list_frames(str(path)), "mask": read_stack, "images": images_of}


@pytest.mark.parametrize("reader", READERS)
def test_exif_is_not_followed_but_told(tmp_path, reader, capsys):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(BYTES).save(tmp_path / "a.png", exif=exif)
    with open_pages(tmp_path / "a.png") as pages:
        assert pages.turned
        np.testing.assert_array_equal(pages.read(0), BYTES)
    READERS[reader](tmp_path / "a.png")
    assert "1 file(s) of" in (said := capsys.readouterr().err) and "taken as stored" in said


@pytest.mark.parametrize("flag", [0, 1])
def test_thumbnails_are_left_out_wherever_they_lie(tmp_path, flag):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(BYTES[:6, :5], subfiletype=flag)
        file.write(BYTES)
        file.write(BYTES[:3, :2], subfiletype=flag)
    np.testing.assert_array_equal(pages_of(tmp_path / "a.tif"), [BYTES])


@pytest.mark.parametrize("bits", [2, 4, 12])
def test_tiff_of_few_bits(tmp_path, bits):
    values = RNG.integers(0, 2**bits, (12, 16))
    (tmp_path / "a.tif").write_bytes(packed_tiff(values, bits))
    with open_pages(tmp_path / "a.tif") as pages:
        top = pages.top or 255
        assert top == (4095 if bits == 12 else 255)
        np.testing.assert_allclose(pages.read(0) / top, values / (2**bits - 1))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
def test_tiff_with_the_predictor_of_floats(tmp_path, compression):
    Image.fromarray(FLOATS).save(tmp_path / "a.tif", compression=compression, tiffinfo={317: 3})
    np.testing.assert_array_equal(pages_of(tmp_path / "a.tif"), [FLOATS])


@pytest.mark.parametrize("kind", [np.int16, np.uint32, np.int32, np.float64])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiff_of_any_number_type(tmp_path, kind, compression):
    values = (COUNTS.astype(kind) - kind(7)).astype(kind)
    tifffile.imwrite(tmp_path / "a.tif", values, compression=compression)
    (found,) = pages_of(tmp_path / "a.tif")
    assert found.dtype == kind
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("top", [255, 4095, 65535])
def test_pgm_keeps_its_counts(tmp_path, top):
    counts = RNG.integers(0, top + 1, (12, 10)).astype(">u2" if top > 255 else "u1")
    (tmp_path / "a.pgm").write_bytes(b"P5\n10 12\n%d\n" % top + counts.tobytes())
    with open_pages(tmp_path / "a.pgm") as pages:
        assert pages.top in (None, top)
        np.testing.assert_array_equal(pages.read(0), counts)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-30]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"\x93NUMPY", b"\x93NUMBY")),
        lambda path: np.savez(path, images=np.zeros(3)),
        lambda path: np.savez(path, images=np.zeros(3), phases=np.array(["a", None])),
        lambda path: path.write_bytes(huge_npz()),
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


def huge_npz() -> bytes:
    """Two arrays that declare a terabyte each."""
    header, archive = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (2**37,)}
    )
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("images", "phases"):
            file.writestr(f"{name}.npy", header.getvalue())
    return archive.getvalue()


def test_fits_in_its_physical_values(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    fits.PrimaryHDU(STACK).writeto(tmp_path / "a.fits")  # unsigned: with BZERO
    np.testing.assert_array_equal(pages_of(tmp_path / "a.fits"), STACK)
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(COUNTS)]).writeto(tmp_path / "b.fits")
    np.testing.assert_array_equal(pages_of(tmp_path / "b.fits"), [COUNTS])


def test_links_of_a_master_file_are_followed(tmp_path):
    with h5py.File(tmp_path / "data_1.h5", "w") as file:
        file["entry/data"] = STACK
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file["entry/data_1"] = h5py.ExternalLink("data_1.h5", "entry/data")
        file["shown"] = h5py.SoftLink("/entry/data_1")  # the same again
        file["lost"] = h5py.ExternalLink("data_2.h5", "entry/data")
    np.testing.assert_array_equal(pages_of(tmp_path / "master.h5"), STACK)
    np.testing.assert_array_equal(pages_of(tmp_path / "master.h5::/entry/data_1"), STACK)
    message = rejection(pages_of, tmp_path / "master.h5::/entry/data_3")
    assert message.endswith("no dataset '/entry/data_3'; it has /entry/data_1")


def write_animation(path):
    Image.fromarray(BYTES).save(path, save_all=True, append_images=[Image.fromarray(BYTES // 2)])


def write_pgm_after_pgm(path):
    path.write_bytes(2 * (b"P5\n10 12\n255\n" + BYTES.tobytes()))


def write_deep_pgm_after_pgm(path):
    path.write_bytes(2 * (b"P5\n10 12\n4095\n" + (COUNTS >> 4).astype(">u2").tobytes()))


def write_two_of_fits(path):
    fits = pytest.importorskip("astropy.io.fits")
    fits.HDUList([fits.PrimaryHDU(COUNTS), fits.ImageHDU(COUNTS)]).writeto(path)


def write_two_values(path):
    pair = np.stack([BYTES, BYTES // 2], axis=-1)
    tifffile.imwrite(path, pair, photometric="minisblack", extrasamples=["unspecified"])


@pytest.mark.parametrize(
    ("name", "write", "says"),
    [
        ("a.png", write_animation, "several pictures"),
        ("a.pgm", write_pgm_after_pgm, "several pictures"),
        ("a.pgm", write_deep_pgm_after_pgm, "several pictures"),
        ("a.fits", write_two_of_fits, "2 images"),
        ("a.tif", write_two_values, "2 values a pixel"),
    ],
)
def test_no_page_of_a_file_is_left_out_in_silence(tmp_path, name, write, says):
    write(tmp_path / name)
    assert says in refused(tmp_path / name)


def save_virtual(path, *sources: str, mapped: int = len(STACK)):
    """A dataset that takes its frames from those named d of other files, one after the other."""
    count, *page = STACK.shape
    layout = h5py.VirtualLayout((len(sources) * count, *page), "u2")
    for number, source in enumerate(sources):
        frames = h5py.VirtualSource(source, "d", STACK.shape)
        layout[number * count : number * count + mapped] = frames[:mapped]
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("d", layout)


@pytest.fixture
def sources(tmp_path):
    """Files for virtual datasets: a good one, a short one, one half written, one lying outside."""
    raw = str(tmp_path / "raw")
    STACK.tofile(raw)
    with h5py.File(tmp_path / "good.h5", "w") as file:
        file["d"] = STACK
    with h5py.File(tmp_path / "part.h5", "w") as file:
        file.create_dataset("d", STACK.shape, "u2", chunks=(1, 12, 10))[:3] = STACK[:3]
    with h5py.File(tmp_path / "outside.h5", "w") as file:
        file.create_dataset("d", STACK.shape, "u2", external=[(raw, 0, STACK.nbytes)])
    save_virtual(tmp_path / "inner.h5", "gone.h5")
    return tmp_path


@pytest.mark.parametrize("source", ["good.h5", "/moved/since/good.h5"])
def test_a_virtual_dataset_is_that_of_its_sources(sources, source):
    save_virtual(sources / "a.h5", source, source)
    np.testing.assert_array_equal(pages_of(sources / "a.h5"), [*STACK, *STACK])
    save_virtual(sources / "b.h5", "a.h5")  # and so is one of virtual ones
    np.testing.assert_array_equal(pages_of(sources / "b.h5"), STACK)


def test_a_virtual_dataset_may_grow_with_its_source(sources):
    layout = h5py.VirtualLayout(STACK.shape, "u2", (None, 12, 10))
    source = h5py.VirtualSource("good.h5", "d", STACK.shape, maxshape=(None, 12, 10))
    layout[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]
    with h5py.File(sources / "a.h5", "w") as file:
        file.create_virtual_dataset("d", layout)
    np.testing.assert_array_equal(pages_of(sources / "a.h5"), STACK)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("gone.h5", "the source 'gone.h5' of /d is not there"),
        ("part.h5", "3 of 5 chunks"),
        ("outside.h5", "lies outside"),
        ("inner.h5", "the source 'gone.h5'"),
    ],
)
def test_what_hdf5_would_read_as_zeros_is_refused(sources, source, says):
    save_virtual(sources / "a.h5", "good.h5", source)
    assert says in refused(sources / "a.h5")


def test_a_virtual_dataset_with_gaps_is_refused(sources):
    save_virtual(sources / "a.h5", "good.h5", mapped=3)
    assert "leave parts of it open" in refused(sources / "a.h5")


def test_hdf5_as_detectors_compress_it(tmp_path):
    hdf5plugin = pytest.importorskip("hdf5plugin")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        filters = hdf5plugin.Bitshuffle(cname="lz4")
        file.create_dataset("d", data=STACK, chunks=(1, 12, 10), compression=filters)
    np.testing.assert_array_equal(pages_of(tmp_path / "a.h5"), STACK)


def npy_header(shape) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<f8", "fortran_order": False, "shape": shape}
    )
    return file.getvalue()


def write_empty(path):
    path.write_bytes(npy_header((10**9, 0, 0)))


def write_beyond_the_file(path):
    path.write_bytes(npy_header((100, 10**4, 10**4)))


def write_npz_bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.npy", npy_header((6000, 1000, 1000)))


def write_unwritten(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("d", (100, 64, 64), "u2")


def write_many_frames(path):
    path.write_bytes(npy_header((10**7, 5, 5)))
    os.truncate(path, path.stat().st_size + 8 * 25 * 10**7)  # takes no room on the disk


def write_a_part(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("d", (100, 12, 10), "u2", chunks=(1, 12, 10))[:10] = 1


def write_huge_chunks(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("d", (1000, 2048, 2048), "u1", chunks=(1000, 2048, 2048))
        file.create_dataset("e", (4,), "u1")
    with h5py.File(path, "r+") as file:
        file["d"].id.write_direct_chunk((0, 0, 0), b"\0")


def write_elsewhere(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("d", (3, 12, 10), "u1", external=[(str(path), 0, 360)])


def write_wide_png(path):
    path.write_bytes(png(13_000, 13_000, 8, 0, b""))


def write_inflated(path):
    tifffile.imwrite(path, np.zeros((12, 10), np.uint8), compression="zlib", rowsperstrip=12)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        tags = file.pages.first.tags
        places = [(tags[code].valueoffset, int(tags[code].dtype)) for code in (273, 279)]
    bomb = zlib.compress(bytes(10**7))
    for (place, kind), value in zip(places, (len(content), len(bomb)), strict=True):
        struct.pack_into("<I" if kind == 4 else "<H", content, place, value)
    path.write_bytes(content + bomb)


@pytest.mark.parametrize(
    ("name", "write", "says"),
    [
        ("a.npy", write_empty, "no pixels"),
        ("a.npy", write_beyond_the_file, "file size"),
        ("a.npz", write_npz_bomb, "48,000,000,000 bytes"),
        ("a.h5", write_unwritten, "nothing was written"),
        ("a.npy", write_many_frames, "10,000,000 pages"),
        ("a.h5", write_a_part, "10 of 100 chunks"),
        ("a.h5", write_huge_chunks, "4,194,304,000 bytes"),
        ("a.h5", write_elsewhere, "lies outside"),
        ("a.png", write_wide_png, "13000"),
        ("a.tif", write_inflated, "compressed data"),
    ],
)
def test_what_a_file_declares_has_a_limit(tmp_path, name, write, says):
    write(tmp_path / name)
    assert says in refused(tmp_path / name)


@pytest.mark.parametrize("suffix", [".npy", ".png", ".tif", ".h5"])
def test_what_is_no_regular_file_is_not_opened(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    os.mkfifo(path)
    assert "no regular file" in refused(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert "no regular file" in refused(path)
