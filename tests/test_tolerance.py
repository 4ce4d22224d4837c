"""Errors of the bench: curves and yield of a trained run, and the command that reports them."""

import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import refusal, run
from helpers import rejection
from scipy import stats

from jax_kdpr.core import json_files
from jax_kdpr.evaluation import tolerance as bench_errors
from jax_kdpr.optics.misalignment import CAREFUL, Perturbation
from jax_kdpr.optics.noise import NoiseOptions
from jax_kdpr.runs.run import load_run

KEY = jax.random.key(0)


def measure_of(workdir, **noise):
    """A trained run, its test images, and measure(by, photons, key) of them; noise of its own."""
    run = replace(load_run(workdir).on_one_device(), batch_size=6)
    images = run.dataset.test[:6]
    camera = replace(run.camera, noise=NoiseOptions(**noise))
    noisy = replace(run, system=replace(run.system, camera=camera))
    return run, images, bench_errors.make_measure(noisy, images)


@pytest.fixture(scope="module")
def measured(designed):
    return measure_of(designed)


def test_the_design_scores_as_the_run_itself(measured):
    trained, images, measure = measured
    scenes = jnp.asarray(images, jnp.float32)[..., None] / (255 if images.dtype == "uint8" else 1)
    output, _ = jax.jit(trained.system.apply)(*trained.variables, scenes, KEY)
    error = np.mean(np.square(np.asarray(output.image - scenes)), axis=(1, 2, 3))
    found = measure(Perturbation(), 0.0, KEY)
    np.testing.assert_allclose(found.psnr, -10 * np.log10(error), atol=1e-3)
    for true, image, rms in zip(scenes[..., 0], output.image[..., 0], found.rms, strict=True):
        off = np.pi * np.asarray(image - true, np.float64)
        inside = true >= true.min() + 0.1 * (true.max() - true.min())
        assert rms == pytest.approx(np.sqrt(np.mean((off - off.mean())[inside] ** 2)), rel=1e-3)


@pytest.mark.slow
def test_errors_cost_more_the_larger_they_are(teacher):
    *_, measure = measure_of(teacher)
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


@pytest.mark.slow
def test_photons_take_the_place_of_the_runs_own_noise(teacher):
    *_, measure = measure_of(teacher, kind="gaussian", snr_db=0.0)
    own = float(np.mean(measure(Perturbation(), 0.0, KEY).psnr))
    many = float(np.mean(measure(Perturbation(), 1e9, KEY).psnr))
    assert many > own + 0.1


def test_yield_is_the_share_at_or_above_the_threshold():
    found = bench_errors.share_above(np.array([20.0, 21.0, 22.0, 23.0]), 21.0)
    n, share, z = 4, 0.75, stats.norm.ppf(0.975)
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    interval = [share, middle - half, middle + half]
    np.testing.assert_allclose([found[name] for name in ("share", "low", "high")], interval)


def test_spreads_are_read_and_checked():
    assert bench_errors.read_spreads(()) == CAREFUL
    assert bench_errors.read_spreads(("shift=0.3", "gain=0")) == {"shift": 0.3, "gain": 0.0}
    for given, got in (
        *(("shift", "'shift'"), ("tilt=1", "'tilt=1'"), ("shift=-1", "got -1")),
        *(("shift=1e300", "got 1e+300"), ("gain=nan", "got nan")),
    ):
        message = rejection(bench_errors.read_spreads, (given,))
        assert message.startswith("--spread: ") and got in message


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--loss=2", "--target=20"], "--target"),
        (["--benches=0", "--spread=shift=0.1"], "--spread"),
        (["--errors=tilt"], "--errors"),
    ],
)
def test_options_that_nothing_would_read_are_refused(designed, tmp_path, options, says):
    output = f"--output={tmp_path / 'new'}"
    assert refusal("tolerance", "--workdir", designed, *options, output).startswith(says)
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_command_reports_two_runs_on_the_same_benches(designed, tmp_path):
    other = tmp_path / "copy"
    shutil.copytree(designed, other)
    options = ["--errors=gain,photons", "--benches=4", "--images=4", f"--output={tmp_path}/out"]
    ran = run("tolerance", "--workdir", designed, other, *options, check=True)
    record = json_files.read_json(tmp_path / "out" / "tolerance.json")
    one, two = record["runs"].values()
    assert one == two
    assert list(one["curves"]) == list(one["rms_curves"]) == ["gain", "photons"]
    assert len(one["bench_psnr"]) == one["yield"]["benches"] == 4 == len(one["bench_rms"])
    assert "yield" in ran.stdout and "copy: rms (rad)" in ran.stdout
    for name in ("tolerance.md", "tolerance.png"):
        assert (tmp_path / "out" / name).stat().st_size > 500
