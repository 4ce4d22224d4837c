"""Errors of the bench: curves and yield of a trained run, and the command that reports them."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import run
from helpers import rejection
from scipy import stats

from jax_kdpr.config.schema import camera_arguments
from jax_kdpr.core import json_files
from jax_kdpr.evaluation import tolerance as bench_errors
from jax_kdpr.optics.misalignment import CAREFUL, Perturbation
from jax_kdpr.runs.run import load_run

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def measured(teacher):
    """A trained run, its test images, and measure(by, photons, key) of them."""
    run = load_run(teacher).on_one_device()
    images = run.dataset.test[:6]
    camera = camera_arguments(run.config)
    measure = bench_errors.make_measure(run, images, camera=camera, batch_size=4)
    return run, images, camera, measure


def test_the_design_scores_as_the_run_itself(measured):
    trained, images, _, measure = measured
    scenes = jnp.asarray(images, jnp.float32)[..., None] / (255 if images.dtype == "uint8" else 1)
    output, _ = trained.system.apply(*trained.variables, scenes, KEY)
    error = np.mean(np.square(np.asarray(output.image - scenes)), axis=(1, 2, 3))
    found = measure(Perturbation(), 0.0, KEY)
    np.testing.assert_allclose(found.psnr, -10 * np.log10(error), atol=1e-3)
    for true, image, rms in zip(scenes[..., 0], output.image[..., 0], found.rms, strict=True):
        off = np.pi * np.asarray(image - true, np.float64)
        inside = true >= true.min() + 0.1 * (true.max() - true.min())
        assert rms == pytest.approx(np.sqrt(np.mean((off - off.mean())[inside] ** 2)), rel=1e-3)


def test_errors_cost_more_the_larger_they_are(measured):
    *_, measure = measured
    curves = bench_errors.error_curves(measure, KEY, kinds=("rotation", "defocus", "photons"))
    for kind in ("rotation", "defocus"):
        psnr = [found.psnr for found in curves[kind].values()]
        assert list(curves[kind]) == list(bench_errors.GRIDS[kind])
        assert psnr[0] == pytest.approx(np.mean(measure(Perturbation(), 0.0, KEY).psnr), abs=1e-4)
        assert psnr[-1] < psnr[0] - 0.5
        rms = [found.rms for found in curves[kind].values()]
        assert rms[-1] > 1.05 * rms[0] > 0
    assert curves["photons"][1e7].psnr > curves["photons"][1e4].psnr


def test_random_benches_are_the_same_for_every_run_and_none_is_the_design(measured):
    *_, measure = measured
    once = bench_errors.random_benches(measure, KEY, count=3, spreads=CAREFUL)
    again = bench_errors.random_benches(measure, KEY, count=3, spreads=CAREFUL)
    np.testing.assert_array_equal(once, again)
    assert len(set(once.psnr)) == 3 == len(set(once.rms))
    still = dict.fromkeys(CAREFUL, 0.0)
    design = float(np.mean(measure(Perturbation(), 0.0, KEY).psnr))
    np.testing.assert_allclose(
        bench_errors.random_benches(measure, KEY, count=2, spreads=still).psnr, design, atol=1e-4
    )


def test_photons_take_the_place_of_the_runs_own_noise(measured):
    trained, images, camera, _ = measured
    noisy = camera | {"noise": {"kind": "gaussian", "snr_db": 0.0}}
    measure = bench_errors.make_measure(trained, images, camera=noisy, batch_size=6)
    own = float(np.mean(measure(Perturbation(), 0.0, KEY).psnr))
    many = float(np.mean(measure(Perturbation(), 1e9, KEY).psnr))
    assert many > own + 0.1


def test_yield_is_the_share_at_or_above_the_threshold():
    psnr = np.array([20.0, 21.0, 22.0, 23.0])
    found = bench_errors.share_above(psnr, 21.0)
    assert found.share == 0.75
    z, n, p = stats.norm.ppf(0.975), 4, 0.75
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    np.testing.assert_allclose([found.low, found.high], [centre - half, centre + half], rtol=1e-6)


def test_spreads_are_read_and_checked():
    assert bench_errors.read_spreads([]) == CAREFUL
    assert bench_errors.read_spreads(["shift=0.3", "gain=0"]) == {"shift": 0.3, "gain": 0.0}
    for given, wanted in (
        ("shift", "NAME=NUMBER, got 'shift'"),
        ("tilt=1", "got 'tilt'"),
        ("shift=-1", "shift: expected a number in [0, 1000] mask pixels, got -1"),
        ("shift=1e300", "shift: expected a number in [0, 1000] mask pixels, got 1e+300"),
        ("gain=nan", "gain: expected a finite number in [0, 1], got nan"),
    ):
        assert wanted in rejection(bench_errors.read_spreads, [given])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--loss=2", "--target=20"], "--target"),
        (["--benches=0", "--spread=shift=0.1"], "--spread"),
        (["--errors=tilt"], "--errors"),
    ],
)
def test_options_that_nothing_would_read_are_refused(teacher, tmp_path, options, says):
    refused = run("tolerance", "--workdir", teacher, *options, f"--output={tmp_path / 'new'}")
    assert refused.returncode == 2 and not (tmp_path / "new").exists()
    assert refused.stderr.startswith(f"error: {says}") and refused.stderr.count("\n") == 1


@pytest.mark.slow
def test_command_reports_two_runs_on_the_same_benches(teacher, tmp_path):
    other = tmp_path / "copy"
    shutil.copytree(teacher, other)
    options = ["--errors=gain,photons", "--benches=4", "--images=4", f"--output={tmp_path}/out"]
    ran = run("tolerance", "--workdir", teacher, other, *options, check=True)
    assert "yield" in ran.stdout
    record = json_files.read_json(tmp_path / "out" / "tolerance.json")
    one, two = record["runs"].values()
    assert one == two
    assert list(one["curves"]) == ["gain", "photons"]
    assert len(one["bench_psnr"]) == one["yield"]["benches"] == 4 == len(one["bench_rms"])
    assert list(one["rms_curves"]) == ["gain", "photons"]
    assert "copy: rms (rad)" in ran.stdout
    for name in ("tolerance.md", "tolerance.png"):
        assert (tmp_path / "out" / name).stat().st_size > 500
