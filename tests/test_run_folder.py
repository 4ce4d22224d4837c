"""Run folders on odd file systems, with damaged logs, and with a second process at them."""

import errno
import fcntl
import json

import pytest

from jax_kdpr.core.errors import InUseError
from jax_kdpr.runs import folder as run_folder

NAMES = [name for name in run_folder.ROW if name not in ("epoch", "step")]


def write_rows(workdir, lines: dict[int, bytes]) -> list[dict]:
    """Writes three rows, of which `lines` replaces some; returns what they were."""
    rows = [{"epoch": e, "step": 4 * e, **dict.fromkeys(NAMES, 1.5)} for e in (1, 2, 3)]
    said = [json.dumps(row).encode() for row in rows]
    for number, line in lines.items():
        said[number] = line
    (workdir / "metrics.jsonl").write_bytes(b"\n".join(said) + b"\n")
    return rows


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize(
    "line", [b'{"epoch": 1, "st', b"null", b"\xff\xfe", b"[1]", b'{"step": 4}']
)
def test_a_damaged_row_takes_no_other_with_it(tmp_path, capsys, line, number):
    rows = write_rows(tmp_path, {number: line})
    del rows[number]
    for _ in range(2):
        assert run_folder.read_metrics(tmp_path) == rows
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: ") and f"line {number + 1}, " in warning
    run_folder.drop_metrics_after(tmp_path, 12)
    assert run_folder.read_metrics(tmp_path) == rows


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_no_other_process(tmp_path, monkeypatch, capsys, code):
    def refuse(*_):
        raise OSError(code, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with run_folder.lock(tmp_path):
        pass
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: ") and "no locks" in warning


def test_one_process_at_a_time(tmp_path):
    with run_folder.lock(tmp_path), pytest.raises(InUseError, match="another process"):
        with run_folder.lock(tmp_path):
            pass
    with run_folder.lock(tmp_path):
        pass
