"""Figures: what their colours mean, and that nothing covers the curves."""

import itertools
import runpy
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from commands import user_environment
from helpers import same
from matplotlib import style
from PIL import Image

from jax_kdpr.evaluation import pictures, plots
from jax_kdpr.evaluation.plots import Line
from jax_kdpr.evaluation.scores import Samples
from jax_kdpr.optics.objects import SceneOptions
from jax_kdpr.recovery.system import Output

SCENES = {
    kind: SceneOptions(kind=kind, phase_range=2.0) for kind in ("phase", "amplitude", "complex")
}
SIZE = 12


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn, in place of their files."""
    figures = []
    for module in (pictures, plots):
        monkeypatch.setattr(module, "write_figure", lambda figure, path: figures.append(figure))
    return figures


def samples(channels: int) -> Samples:
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.random((2, SIZE, SIZE, channels)), jnp.float32)
    output = Output(
        image=1.0 - images,
        estimate=jnp.exp(1j * images[..., 0]),
        intensity=jnp.asarray(rng.random((2, 1, SIZE, SIZE)), jnp.float32),
        **{name: jnp.zeros(2) for name in set(Output._fields) - {"image", "estimate", "intensity"}},
    )
    return Samples(images, output, jnp.asarray(rng.random((1, SIZE, SIZE)), jnp.float32))


def bars(figure) -> dict[str, int]:
    """How many colour bars have each label."""
    found = {}
    for axis in figure.axes:
        label = axis.get_xlabel() or axis.get_ylabel()
        if axis.get_label() == "<colorbar>":
            found[label] = found.get(label, 0) + 1
    return found


def panels(figure) -> dict[str, object]:
    """The first picture below each title."""
    found = {}
    for axis in figure.axes:
        if axis.images and axis.get_title():
            found.setdefault(axis.get_title(), axis.images[0])
    return found


@pytest.mark.parametrize("kind", SCENES)
def test_every_panel_of_a_run_has_a_bar_in_the_objects_unit(kind, drawn, tmp_path):
    scene, shown = SCENES[kind], samples(2 if kind == "complex" else 1)
    pictures.plot_run(shown, tmp_path / "a.png", scene=scene, axis=(0, 0), title="t", pitch=8e-6)
    said = bars(drawn[0])
    expected = {"phase (rad)": 2, "intensity, log10": 1, "modulus": 1}  # one for alike panels
    if kind != "amplitude":
        expected |= {"recovered - scene (rad)": 1}
    if kind != "phase":
        expected |= {"amplitude": 1, "recovered - scene": 1}
    assert said == expected
    found = panels(drawn[0])
    part = ", phase" if kind == "complex" else ""
    image = np.asarray(shown.images[0, ..., 0])
    unit = 1.0 if kind == "amplitude" else 2.0
    np.testing.assert_allclose(found[f"scene{part}"].get_array(), unit * image, rtol=1e-6)
    assert found[f"recovered{part}"].get_clim() == (0.0, unit)
    assert found[f"error{part}"].get_clim() == (-unit / 2, unit / 2)
    assert found[f"scene{part}"].axes.get_xticklabels()[1].get_text() == f"{8 * SIZE} µm"
    assert not found["CDP, shot 1 of 1"].axes.get_xticks().size
    # The estimate's phase is a phase of the scene, where this has one: the same colours, no turn.
    estimated = found["estimate, arg z"]
    if kind != "amplitude":
        assert estimated.get_clim() == (0.0, 2.0)
        assert estimated.get_cmap() == found[f"scene{part}"].get_cmap()
    np.testing.assert_allclose(estimated.get_array(), image, rtol=1e-5, atol=1e-6)
    assert 0.2 < found["estimate, |z|"].norm(1.0) < 0.9  # an even modulus is not drawn white


def test_a_sheet_marks_what_is_to_be_trusted_below_names_that_stay_apart(drawn, tmp_path):
    names = [f"2026-11-27_HeLa_plate3_40x_exposure20ms_{number:04d}" for number in range(11)]
    objects = [pictures.Sheet(name, np.ones((4, 4)), "", trusted=name[-1] != "2") for name in names]
    scale = pictures.part_scale("phase", SCENES["phase"])
    pictures.plot_sheet(objects, tmp_path / "a.png", scale=scale, title="t")
    assert bars(drawn[0]) == {"phase (rad)": 1}
    shown = [axis for axis in drawn[0].axes if axis.images]
    assert all(a.get_title()[-4:] == name[-4:] for a, name in zip(shown, names, strict=True))
    colours = [axis.spines["left"].get_edgecolor() for axis in shown]
    assert colours.count(colours[2]) == 1 and len(set(colours)) == 2
    drawn[0].draw_without_rendering()
    boxes = [axis.title.get_window_extent() for axis in shown]
    assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))


@pytest.mark.parametrize("count", [3, 40])
def test_curves_are_told_apart_and_the_legend_covers_none(count, drawn, tmp_path):
    lines = {
        f"a system of number {n}": Line([1.0, 2.0], [n, n + 1.0], [0.1, 0.1]) for n in range(count)
    }
    plots.plot_lines(lines, tmp_path / "a.png", x_label="x", reference=("baseline", 2.0))
    plots.plot_panels({"x": lines, "y": lines}, tmp_path / "b.png")
    for figure in drawn:
        looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].get_lines()}
        assert len(looks) >= count
        figure.draw_without_rendering()
        (legend,) = figure.legends
        box = legend.get_window_extent()
        assert len(legend.get_texts()) >= count
        assert not any(box.overlaps(axis.get_window_extent()) for axis in figure.axes)


def test_figures_do_not_depend_on_a_users_settings(tmp_path):
    lines = {"one": plots.Line([0.0, 1.0], [1.0, 2.0])}
    plots.plot_lines(lines, tmp_path / "own.png", x_label="x")
    with style.context({"text.usetex": True, "axes.facecolor": "red", "font.size": 30.0}):
        plots.plot_lines(lines, tmp_path / "theirs.png", x_label="x")
    one, other = (Image.open(tmp_path / f"{name}.png") for name in ("own", "theirs"))
    assert same(one, other)


@pytest.mark.slow
def test_the_backend_of_a_notebook_that_is_not_here_breaks_nothing():
    code = "from jax_kdpr.core import figures; figures.Figure().savefig('/dev/null', format='png')"
    environment = user_environment(MPLBACKEND="module://not_here.backend")
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


@pytest.mark.slow
def test_the_setup_of_the_readme_is_drawn_from_a_run(recorded, tmp_path):
    script = runpy.run_path(str(Path(__file__).parents[1] / "docs" / "figures" / "setup.py"))
    script["draw"](recorded / "e2e", tmp_path / "setup.png")
    with Image.open(tmp_path / "setup.png") as figure:
        pixels = np.asarray(figure.convert("RGB"))
    ratio = script["WIDTH"] / script["HEIGHT"]
    assert pixels.shape[1] / pixels.shape[0] == pytest.approx(ratio, rel=0.01)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 200
