"""Measured look-up tables: what is read, and what is refused."""

import math

import numpy as np
import pytest
from helpers import rejection
from scipy.interpolate import make_interp_spline

from jax_kdpr.optics.lookup_table import device_table, read_table

PHASES = (0.3, 1.9, 1.2, 4.0)  # not monotone


def written(path, text: str):
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "gray phase_rad\n0 0.3\n1 1.9\n2\t1.2\n3 4.0",
        "# measured at 635 nm\nlevel; phase (rad)\n0; 0.3\n1; 1.9\n\n2; 1.2\n3; 4.0\n",
        "gray,rad\n3,4.0\n1,1.9\n0,0.3\n2,1.2\n",  # in any order
        "level,phase (panel 2) [rad]\n0,0.3\n1,1.9\n2,1.2\n3,4.0\n",
        "level,phase at a wavelength of 635 nm (rad)\n0,0.3\n1,1.9\n2,1.2\n3,4.0\n",
        "Grauwert;Phase (rad)\n0;0,3\n1;1,9\n2;1,2\n3;4,0\n",  # with decimal commas
        "\ufeffgray\tphase (rad)\n0\t0,3\n1\t1,9\n2\t1,2\n3\t4,0\n",  # after a spreadsheet's mark
    ],
)
def test_text_of_two_columns(tmp_path, text):
    assert read_table(written(tmp_path / "slm.csv", text)) == PHASES


@pytest.mark.parametrize(
    ("unit", "radians"),
    [
        *[("waves", math.tau), ("lambda", math.tau), ("deg", math.pi / 180)],
        *[("pi", math.pi), ("pi rad", math.pi), ("pi*rad", math.pi), ("pi_rad", math.pi)],
        *[("lambda/2", math.pi), ("waves/10", math.tau / 10), ("0.5 λ", math.pi)],
        *[("2pi", math.tau), ("2 pi rad", math.tau), ("2*pi", math.tau), ("pi/2", math.pi / 2)],
    ],
)
def test_a_header_names_the_unit(tmp_path, unit, radians, capsys):
    values = [phase / radians for phase in PHASES]
    rows = [f"{level},{value:.17g}" for level, value in enumerate(values)]
    for title in (f"phase ({unit})", f"phase_{unit}", f"phase [{unit.upper()}]"):
        path = written(tmp_path / "slm.csv", "\n".join([f"gray,{title}", *rows]))
        assert read_table(path) == pytest.approx(PHASES)
        assert "4 gray levels, 0.3 to 4 rad" in capsys.readouterr().out
    for separator in (";", "\t", " "):
        text = "\n".join([f"gray,phase ({unit})", *rows]).replace(",", separator)
        assert read_table(written(tmp_path / "slm.txt", text)) == pytest.approx(PHASES)


@pytest.mark.parametrize("title", ["gray,phase", "", "gray,phase at 635 nm"])
@pytest.mark.parametrize("top", [1.0, 2.0, 6.2, 4.0])  # a turn in waves, pi and radians; volts
def test_a_table_that_does_not_name_its_unit_is_refused(tmp_path, top, title):
    rows = [f"{level},{top * level / 255}" for level in range(256)]
    path = written(tmp_path / "slm.csv", "\n".join([title, *rows]))
    said = rejection(read_table, path)
    assert "unit" in said and f"0 to {top:g}" in said and "(waves)" in said
    path = written(tmp_path / "slm.csv", "\n".join(["gray,phase (rad)", *rows]))
    assert read_table(path)[-1] == top
    np.save(tmp_path / "slm.npy", np.linspace(0, 2.0, 256))  # arrays are in radians
    assert "from 0 to 2;" in rejection(read_table, tmp_path / "slm.npy")


def test_levels_between_measured_ones_are_interpolated(tmp_path, capsys):
    """Every eighth level and the last one, as labs measure them: SciPy's line through them."""
    measured = [*range(0, 256, 8), 255]
    phases = [6.5 * (level / 255) ** 1.3 for level in measured]
    rows = [f"{level},{phase:.17g}" for level, phase in zip(measured, phases, strict=True)]
    path = written(tmp_path / "slm.csv", "\n".join(["gray,phase (rad)", *rows]))
    line = make_interp_spline(measured, phases, k=1)
    np.testing.assert_allclose(read_table(path), line(np.arange(256)), rtol=1e-12)
    assert "256 gray levels" in (said := capsys.readouterr().out) and "33 were measured" in said
    np.save(tmp_path / "slm.npy", np.array([measured, phases]).T)
    assert read_table(tmp_path / "slm.npy") == read_table(path)


def test_arrays(tmp_path):
    for number, rows in enumerate([PHASES, [*enumerate(PHASES)]]):
        np.save(tmp_path / f"{number}.npy", np.array(rows))
        assert read_table(tmp_path / f"{number}.npy") == PHASES
    np.save(tmp_path / "three.npy", np.zeros((4, 3)))
    assert "(4, 3)" in rejection(read_table, tmp_path / "three.npy")
    assert "array" in rejection(read_table, written(tmp_path / "text.npy", "0,1"))
    assert "is not there" in rejection(read_table, tmp_path / "none.csv")


def test_what_a_panel_adds_is_what_the_negative_mask_does(tmp_path):
    table = device_table(written(tmp_path / "slm.csv", "gray,rad\n0,0.3\n1,1.9\n2,1.2\n3,4.0"))
    np.testing.assert_allclose(np.exp(-1j * np.array(table)), np.exp(1j * np.array(PHASES)))
    assert all(0 <= phase < math.tau for phase in table)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gray,rad\n0,0.3\n1,1.9\n3,4.0", ["levels 1 and 3", "unwrap", "2.1 between"]),
        ("gray,rad\n0,5.3\n8,6.1\n16,0.6\n24,1.4", ["levels 8 and 16", "unwrap"]),
        ("0,0.3\n1,1.9\n1,2.0\n2,4.0", ["once, got 1 twice"]),
        ("1,0.3\n2,4.9", ["from 0 on, got 1", "level 0"]),
        ("0,0.3\n1.5,1\n3,4.9", ["whole numbers", "got 1.5"]),
        ("0,0.3\n70000,4.9", ["65535", "70000"]),
        ("0 0\n1 412\n2 1105\n3 4095", ["voltages", "gray_2pi", "4095"]),
        ("0,0.3\n1,nan", ["NaN"]),
        ("0,0.3", ["two gray levels or more, got 1"]),
        ("", ["two gray levels or more, got 0"]),
        ("0,0.3,7\n1,1.9,8", ["two columns", "got 3"]),
        ("0.3\n1.9", ["two columns", "got 1"]),
        ("0,0\n1,180\n2,359", ["unit", "359", "(degrees)"]),
        ("gray,rad\n0,0\n1,180\n2,359", ["at most 4 pi", "359 rad"]),
        ("0,0.3\n1,x", ["numbers", "'1,x'"]),
        *[
            (f"gray;{title}\n0;0\n1;4", ["one unit", title])
            for title in (
                *("waves (pi)", "phase (half waves)", "phase (centi-waves)"),
                *("phase (halfwaves)", "phase mod 2pi", "phase_0_2pi", "phase (2pi wrapped)"),
                *("phase (2/pi)", "phase (waves/0)", "phase (0 waves)", "phase (rad) of 2 pi"),
                *("phase (mrad)", "phase in rad", "2pi wrapped"),
            )
        ],
        ("gray,phase (deg, rad)\n0,0\n1,4", ["one unit", "deg, rad"]),
    ],
)
def test_bad_tables_are_one_line(tmp_path, text, says):
    path = written(tmp_path / "slm.csv", text)
    message = rejection(read_table, path)
    assert [words for words in [str(path), *says] if words not in message] == [], message
