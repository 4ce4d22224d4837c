"""Measured look-up tables: what is read, and what is refused."""

import math

import numpy as np
import pytest
from helpers import rejection

from jax_kdpr.lookup import device_table, read_table

PHASES = (0.3, 1.9, 1.2, 4.0)  # not monotone


def written(path, text: str):
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "gray,phase\n0,0.3\n1,1.9\n2,1.2\n3,4.0\n",
        "0 0.3\n1 1.9\n2\t1.2\n3 4.0",
        "# measured at 635 nm\nlevel; phase (rad)\n0; 0.3\n1; 1.9\n\n2; 1.2\n3; 4.0\n",
        "3,4.0\n1,1.9\n0,0.3\n2,1.2\n",  # in any order
    ],
)
def test_text_of_two_columns(tmp_path, text):
    assert read_table(written(tmp_path / "slm.csv", text)) == PHASES


def test_arrays(tmp_path):
    np.save(tmp_path / "one.npy", np.array(PHASES))
    np.save(tmp_path / "two.npy", np.stack([np.arange(4), PHASES], axis=1))
    assert read_table(tmp_path / "one.npy") == PHASES == read_table(str(tmp_path / "two.npy"))


def test_what_a_panel_adds_is_what_the_negative_mask_does(tmp_path):
    table = device_table(written(tmp_path / "slm.csv", "0,0.3\n1,1.9\n2,1.2\n3,4.0"))
    np.testing.assert_allclose(np.exp(-1j * np.array(table)), np.exp(1j * np.array(PHASES)))
    assert all(0 <= phase < math.tau for phase in table)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0,0.3\n1,1.9\n3,4.0", ["0 to 2", "got 3 in place of 2"]),
        ("0,0.3\n1,1.9\n1,2.0\n2,4.0", ["got 1 in place of 2"]),
        ("1,0.3\n2,1.9", ["got 1 in place of 0"]),
        ("0,0.3\n1,nan", ["NaN"]),
        ("0,0.3", ["two gray levels or more, got 1"]),
        ("", ["two gray levels or more, got 0"]),
        ("0,0.3,7\n1,1.9,8", ["two columns", "got 3"]),
        ("0.3\n1.9", ["two columns", "got 1"]),
        ("0,0\n1,180\n2,359", ["radians", "359", "degrees"]),
        ("0,0.3\n1,x", ["numbers", "'1,x'"]),
    ],
)
def test_bad_tables_are_one_line(tmp_path, text, says):
    path = written(tmp_path / "slm.csv", text)
    message = rejection(read_table, path)
    assert [words for words in [str(path), *says] if words not in message] == [], message


def test_what_is_no_table(tmp_path):
    np.save(tmp_path / "three.npy", np.zeros((4, 3)))
    assert "(4, 3)" in rejection(read_table, tmp_path / "three.npy")
    assert "array" in rejection(read_table, written(tmp_path / "text.npy", "0,1"))
    assert "cannot be read" in rejection(read_table, tmp_path / "none.csv")
