"""MATLAB files of all versions: which variable is read, and which axis counts the images."""

from pathlib import Path

import numpy as np
import pytest
from helpers import rejection
from page_files import matlab, pages_of
from scipy import sparse

from jax_kdpr.data.pages.opening import read_named
from jax_kdpr.lab.frames.reading import list_frames

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (12, 10)).astype(np.uint8)
COUNTS = RNG.integers(0, 65536, (12, 10)).astype(np.uint16)
FLOATS = RNG.random((12, 10)).astype(np.float32)
STACK = RNG.integers(0, 65536, (5, 12, 10)).astype(np.uint16)
READ = [
    *[
        (matlab(frames=np.moveaxis(STACK, 0, -1), exposure_s=0.02, **more, **how), STACK)
        for how in ({}, {"do_compression": True})
        for more in ({}, {"times": np.arange(5.0), "sample": "cells"})
    ],
    (matlab(blank=FLOATS), [FLOATS]),
    (matlab(blank=COUNTS.astype(float), format="4"), [COUNTS.astype(float)]),
]


@pytest.mark.parametrize(("write", "wanted"), READ)
def test_what_a_file_holds_is_read(tmp_path, write, wanted):
    write(tmp_path / "a.mat")
    found = pages_of(tmp_path / "a.mat")
    assert found[0].dtype == wanted[0].dtype
    np.testing.assert_array_equal(found, wanted)


def test_a_variable_of_matlab_is_named_or_the_only_one(tmp_path):
    """Of `save -v7.3`, too: the file is by hdf5storage 0.2.2, which writes as MATLAB does."""
    latest = Path(__file__).parent / "data" / "matlab73.mat"
    wanted = np.moveaxis(np.arange(300, 360, dtype=np.uint16).reshape(5, 4, 3), -1, 0)
    for named in (str(latest), f"{latest}::frames"):
        np.testing.assert_array_equal(read_named("--input", named), wanted)
    assert [frame.dataset for frame in list_frames(str(latest))] == ["frames"] * 3
    matlab(a=BYTES, b=STACK, c=COUNTS * 1j)(tmp_path / "two.mat")
    for part, says in (
        ("", "got a, b, c; name it, such as 'two.mat::a'"),
        ("::d", "it has a, b, c"),
        ("::c", "real numbers"),
    ):
        assert says in rejection(read_named, "--input", f"{tmp_path}/two.mat{part}")
    np.testing.assert_array_equal(read_named("--input", f"{tmp_path}/two.mat::a")[0], BYTES)
    stacked = np.moveaxis(STACK, 0, -1)
    for values, says in (
        (np.zeros((2, 3, 4, 5)), "[h w n], got e of shape (2, 3, 4, 5); squeeze"),
        (np.zeros((20, 8, 8)), "may be [h w n] or [n h w]; save it as [h w 1 n]"),
        (np.zeros((8, 64, 64)), "may be [h w n] or [n h w]"),
        (np.array([[BYTES, COUNTS]], object), "got e (cell); save the numbers alone"),
        ({"frames": stacked}, "got e (struct)"),
        ("cells", "got e (char)"),
        (sparse.eye_array(8), "got e (sparse)"),
    ):
        matlab(e=values)(tmp_path / "wrong.mat")
        assert says in rejection(read_named, "--input", f"{tmp_path}/wrong.mat")
    assert "'e' of class sparse" in rejection(read_named, "--input", f"{tmp_path}/wrong.mat::e")
    square = np.arange(320, dtype=np.uint16).reshape(5, 8, 8)
    matlab(e=np.moveaxis(square, 0, -1)[:, :, None])(tmp_path / "four.mat")
    np.testing.assert_array_equal(read_named("--input", f"{tmp_path}/four.mat"), square)
