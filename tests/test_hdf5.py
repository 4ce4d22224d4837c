"""HDF5 files whose frames lie in other files: links, and virtual datasets."""

import h5py
import numpy as np
import pytest
from helpers import rejection
from page_files import hdf5, pages_of, refused, save_hdf5

STACK = np.random.default_rng(0).integers(0, 65536, (5, 12, 10)).astype(np.uint16)


def test_links_of_a_master_file_are_followed(tmp_path):
    save_hdf5(tmp_path / "data_1.h5", STACK)
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file["entry/data_1"] = h5py.ExternalLink("data_1.h5", "entry/data")
        file["shown"] = h5py.SoftLink("/entry/data_1")  # the same again
        file["lost"] = h5py.ExternalLink("data_2.h5", "entry/data")
    np.testing.assert_array_equal(pages_of(tmp_path / "master.h5"), STACK)
    np.testing.assert_array_equal(pages_of(tmp_path / "master.h5::/entry/data_1"), STACK)
    message = rejection(pages_of, tmp_path / "master.h5::/entry/data_3")
    assert "'/entry/data_3'" in message and message.endswith("/entry/data_1")


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
    hdf5(*STACK.shape, chunks=(1, 12, 10), written=3)(tmp_path / "part.h5")
    hdf5(*STACK.shape, external=[(raw, 0, STACK.nbytes)])(tmp_path / "outside.h5")
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
    ("given", "mapped", "says"),
    [
        (["good.h5", "gone.h5"], 5, "'gone.h5' of /d"),
        (["good.h5", "part.h5"], 5, "3 of 5 chunks"),
        (["good.h5", "outside.h5"], 5, "lies outside"),
        (["good.h5", "inner.h5"], 5, "'gone.h5'"),
        (["good.h5"], 3, "open"),
    ],
)
def test_what_hdf5_would_read_as_zeros_is_refused(sources, given, mapped, says):
    save_virtual(sources / "a.h5", *given, mapped=mapped)
    assert says in refused(sources / "a.h5")
