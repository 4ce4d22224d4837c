"""Files are written whole, through no link, by one process; damage takes nothing with it."""

import errno
import fcntl
import json
import os
import time

import numpy as np
import pytest
from helpers import rejection

from jax_kdpr.config.schema import Config
from jax_kdpr.core import json_files, whole_files
from jax_kdpr.core.errors import InputError, InUseError, StoppedError
from jax_kdpr.lab.frames import results
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.metric_log import MetricLog

OTHERS = "the only copy"


@pytest.fixture
def precious(tmp_path):
    """A file of somebody else's, outside the folder that is written to."""
    path = tmp_path / "thesis.tex"
    path.write_text(OTHERS)
    return path


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "run"
    made.mkdir()
    return made


def stack(folder):
    plane = np.zeros((4, 4), np.float32)
    with results.open_stack(folder, 1) as append:
        append(results.Recovery("object", {"phase": plane}, plane + 0j, plane[None]))


WRITERS = {  # of which the last two open their files themselves
    "metrics.json": lambda folder: json_files.write_json(folder / "metrics.json", {}),
    "phase.npy": stack,
    "phase.tif": stack,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_link_is_replaced_and_not_followed(folder, precious, name):
    (folder / name).symlink_to(precious)
    umask = os.umask(0o027)
    WRITERS[name](folder)
    os.umask(umask)
    assert precious.read_text() == OTHERS
    assert (folder / name).is_file() and not (folder / name).is_symlink()
    assert (folder / name).stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("target", ["thesis.tex", "nowhere"])
def test_lock_and_log_are_not_opened_through_a_link(folder, precious, target):
    for name in ("run.lock", "metrics.jsonl"):
        (folder / name).symlink_to(precious.with_name(target))
    with pytest.raises(InputError, match=r"run\.lock"):
        run_folder.lock(folder).__enter__()
    with pytest.raises(InputError, match=r"metrics\.jsonl"):
        MetricLog(folder).append({"epoch": 1})
    assert precious.read_text() == OTHERS and not precious.with_name("nowhere").exists()


def test_one_process_at_a_time_and_what_is_in_the_locks_file_stays(folder):
    (folder / "run.lock").write_text("as it was")
    with run_folder.lock(folder), pytest.raises(InUseError):
        with run_folder.lock(folder):
            pass
    with run_folder.lock(folder):
        pass
    assert (folder / "run.lock").read_text() == "as it was"


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_no_other_process(folder, monkeypatch, capsys, code):
    def refuse(*_):
        raise OSError(code, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with run_folder.lock(folder):
        pass
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: ") and "no locks" in warning


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize(
    "line", [b'{"epoch": 1, "st', b"null", b"\xff\xfe", b"[1]", b'{"step": 4}']
)
def test_a_damaged_row_takes_no_other_with_it(tmp_path, capsys, line, number):
    rows = [dict.fromkeys(run_folder.ROW, 1.5) | {"epoch": e, "step": 4 * e} for e in (1, 2, 3)]
    lines = [json.dumps(row).encode() for row in rows]
    lines[number] = line
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    del rows[number]
    for _ in range(2):
        assert run_folder.read_metrics(tmp_path) == rows
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: ") and f"line {number + 1}" in warning
    MetricLog(tmp_path).resume_at(12)
    assert run_folder.read_metrics(tmp_path) == rows


def test_a_failed_write_leaves_the_old_file_and_nothing_else(folder):
    path = folder / "masks.npy"
    path.write_bytes(b"old")

    def fail(file):
        file.write(b"half")
        raise OSError("4096 requested and 0 written")  # as NumPy says that there is no room

    with pytest.raises(StoppedError, match=r"masks.npy: 4096 requested and 0 written"):
        whole_files.write_whole(path, fail)
    assert path.read_bytes() == b"old" and os.listdir(folder) == ["masks.npy"]


def test_a_new_file_waits_for_its_end_and_two_writers_do_not_meet(folder):
    path = folder / "masks.npy"
    with whole_files.whole(path) as one, whole_files.whole(path) as other:
        one.write(b"one")
        other.write(b"other")
        assert not path.exists()
    assert path.read_bytes() == b"one"  # the one that ended last


def test_what_a_killed_writer_left_goes_after_a_day(folder):
    path = folder / "phase.npy"
    old, new, foreign = (folder / f"phase.npy.{end}" for end in ("0a1b2c3d.tmp", "99.tmp", "bak"))
    fresh = folder / "phase.npy.00000000.tmp"
    for file in (old, new, foreign, fresh):
        file.write_bytes(b"half")
    for file in (old, new, foreign):
        os.utime(file, (time.time() - 2 * whole_files.ABANDONED,) * 2)
    whole_files.remove_abandoned(path)
    assert set(folder.iterdir()) == {new, foreign, fresh}


def test_leftovers_of_a_killed_start_are_not_foreign(folder):
    for name in ("run.lock", "run.json.0a1b2c3d.tmp"):
        (folder / name).write_text("half")
    run_folder.check_workdir(folder, Config(), {})
    (folder / "other.json.0a1b2c3d.tmp").write_text("half")
    assert str(folder) in rejection(run_folder.check_workdir, folder, Config(), {})


def test_a_staging_folder_goes_at_its_end_and_if_it_was_left_after_a_day(folder):
    left = folder / f"{whole_files.STAGED}.0a1b2c3d.tmp"
    left.mkdir()
    (left / "figure.png").touch()
    with whole_files.staging(folder) as living:
        (living / "figure.png").touch()
        assert set(folder.iterdir()) == {left, living}
        os.utime(left, (time.time() - 2 * whole_files.ABANDONED,) * 2)
        with whole_files.staging(folder) as other:
            assert set(folder.iterdir()) == {living, other}
    assert not os.listdir(folder)


@pytest.mark.parametrize("special", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_neither_read_nor_waited_for(folder, special):
    special(folder / "special")
    with pytest.raises(OSError, match="no regular file"):
        whole_files.read_bytes(folder / "special")
    with pytest.raises(InputError, match="a link or a pipe"):
        whole_files.open_in_place(folder / "special")
