"""Optics without a network, such as those of a mask that exists: in Python and by the commands."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from commands import refusal, run
from helpers import rejection, same

import jax_kdpr as kdpr
from jax_kdpr.config import presets
from jax_kdpr.config.schema import Config
from jax_kdpr.optics.mask_files.reading import read_mask_file
from jax_kdpr.recovery.projections import Settings
from jax_kdpr.recovery.solvers import amplitude_misfit, solve
from jax_kdpr.recovery.spectral import filtered_spectral_init
from jax_kdpr.runs.run import untrained

MASKS = np.random.default_rng(1).uniform(0, 2 * np.pi, (2, 16, 16)).astype(np.float32)


def small() -> Config:
    config = presets.quickstart()
    config.data.size, config.masks.snapshots = 16, 2
    return config


@pytest.fixture
def place(tmp_path):
    """A mask file, and a config of what it is for."""
    np.save(tmp_path / "masks.npy", MASKS)
    (tmp_path / "config.py").write_text(
        "from jax_kdpr.config import presets\n\n\ndef get_config():\n"
        "    config = presets.quickstart()\n"
        "    config.data.size, config.masks.snapshots = 16, 2\n"
        f"    config.masks.start, config.masks.file = 'file', {str(tmp_path / 'masks.npy')!r}\n"
        "    return config\n"
    )
    return tmp_path


def test_masks_alone_make_a_bench_that_measures_and_recovers(place):
    how = {"solver": kdpr.Refinement(200, "accelerated", 0.02), "starts": 4}
    bench = kdpr.bench(place / "masks.npy", small(), **how)
    assert same(bench.phases, MASKS) and same(kdpr.bench(MASKS, small()).phases, MASKS)
    images = np.asarray(bench.scenes(3))[..., 0]
    frames = bench.measure(images)
    field = np.exp(1j * bench.camera.scene.phase_range * images[0])
    by_hand = np.abs(np.fft.fft2(np.exp(-1j * MASKS) * field, norm="ortho")) ** 2
    np.testing.assert_allclose(frames[0], by_hand, atol=2e-3)
    found = bench.reconstruct(frames)
    scores = bench.camera.score(jnp.asarray(found.image), jnp.asarray(images)[..., None])
    assert found.misfit.max() < 0.05 and float(jnp.min(scores.psnr)) > 30
    assert "without" in rejection(bench.evaluate)
    assert kdpr.bench(MASKS[0]).snapshots == 1


@pytest.mark.parametrize(
    "masks", [np.zeros((3, 4)), np.zeros((1, 4, 4), complex), np.full((4, 4), np.nan), np.zeros(0)]
)
def test_what_is_no_mask_is_refused(masks):
    assert rejection(kdpr.bench, masks).startswith("masks: expected finite phases in radians")


def test_of_all_starts_the_answer_that_fits_best_is_taken():
    config, solver = small(), kdpr.Refinement(20, "accelerated", 0.02)
    config.masks.snapshots = 1
    run = untrained(config, solver=solver, starts=4).on_one_device()
    y = run.system.measure(run.variables[0], run.scenes(2), jnp.zeros(2, jnp.uint32))
    output, _ = run.system.recover(*run.variables, y)
    kernel, starts = run.variables[0]["filter"], run.variables[1]["starts"]
    for shot, estimate in zip(y, output.estimate, strict=True):
        misfits, firsts = [], []
        for start in starts:
            first, _ = filtered_spectral_init(shot, run.optics, kernel, start, run.system.spectral)
            field, misfit = solve(
                *(shot, run.optics, first),
                solver="accelerated",
                steps=20,
                scene="phase",
                settings=Settings(tv=0.02),
            )
            np.testing.assert_allclose(misfit, amplitude_misfit(field, shot, run.optics))
            misfits.append(float(misfit))
            firsts.append(first)
        assert len(set(misfits)) > 1
        np.testing.assert_allclose(estimate, firsts[int(np.argmin(misfits))], atol=1e-4)


def test_the_commands_take_a_config_in_place_of_a_run(place):
    config = f"--config={place / 'config.py'}"
    run("export_mask", config, f"--output={place}/files", "--format=slm", check=True)
    held = read_mask_file(place / "files" / "slm-1.png")
    assert np.abs(np.exp(1j * (held.phases[0] - MASKS[1])) - 1).max() < np.pi / 256 + 1e-3
    run("solve", config, f"--output={place}/solve", "--images=3", "--steps=100", check=True)
    results = json.loads((place / "solve" / "solve.json").read_text())["results"]
    assert set(results) == {"start", "raar"} and results["raar"]["psnr"] > 40
    flags = ("--images=2", "--benches=2", "--errors=shift", "--starts=2", "--refine=50")
    flags += ("--refine_with=accelerated",)
    run("tolerance", config, f"--output={place}/bench", *flags, check=True)
    found = json.loads((place / "bench" / "tolerance.json").read_text())["runs"]["optics"]
    assert found["design_psnr"] > found["curves"]["shift"]["1.0"] + 5
    assert len(found["bench_psnr"]) == 2
    # Other masks do not replace those files.
    other = (config, f"--config.masks.file={place}/other.npy", f"--output={place}/files")
    np.save(place / "other.npy", MASKS + 1)
    assert "other masks" in refusal("export_mask", *other, "--format=slm")


def test_a_rehearsal_without_a_network_may_be_cut_off_and_goes_on(place):
    config = (f"--config={place / 'config.py'}", "--config.masks.snapshots=2")
    run("simulate_bench", *config, f"--output={place}/frames", "--frames=2", check=True)
    given = (
        f"--input={place}/frames/frames/*.tif",
        f"--dark={place}/frames/dark.tif",
        "--scale=3.1",
    )
    how = ("--starts=2", "--refine=30", f"--output={place}/objects")
    run("reconstruct", *config, *given, *how)
    done = json.loads((place / "objects" / "results.json").read_text())["frames"]
    again = run("reconstruct", *config, *given, *how, "--resume")
    assert "--resume" not in again.stderr
    assert json.loads((place / "objects" / "results.json").read_text())["frames"] == done
    np.save(place / "masks.npy", MASKS + 1.0 * (np.arange(16) > 7))  # other masks, of the same name
    assert "masks" in refusal("reconstruct", *config, *given, *how, "--resume")


def test_a_bench_takes_a_config_that_was_of_a_run():
    config = small()
    config.regime, config.masks.start, config.masks.file = "student", "file", "elsewhere.npy"
    config.distill.teacher, config.loss.alpha = "runs/teacher", 0.9
    assert kdpr.bench(MASKS, config).snapshots == 2 and config.masks.file == "elsewhere.npy"
    config.optics = "nonexistent.json"
    assert "nonexistent.json" in rejection(kdpr.bench, MASKS, config)
    for solver, starts in ((kdpr.Refinement(0), 4), (kdpr.Refinement(5), 0)):
        rejection(kdpr.bench, MASKS, small(), solver=solver, starts=starts)
    assert "none_such" in rejection(
        kdpr.bench, MASKS, small(), solver=kdpr.Refinement(5, "none_such")
    )


@pytest.mark.parametrize(
    ("command", "options", "says"),
    [
        ("export_mask", ("--format=slm", "--output={place}/x", "--verify"), "--config"),
        ("export_mask", ("--format=slm",), "--output"),
        ("solve", ("--output={place}/x", "--start=network"), "--start"),
        ("solve", ("--output={place}/x", "--workdir=runs/none"), "give one"),
        ("solve", ("--output={place}/x", "--data_dir={place}"), "--data_dir"),
        ("solve", ("--output={place}/x", "--calibration={place}/none.json"), "--calibration"),
        ("tolerance", (), "--output"),
        (
            "tolerance",
            ("--output={place}/x", "--config.device.crosstalk=0.2", "--refine_with=hio"),
            "hio",
        ),
    ],
)
def test_what_wants_a_network_or_is_missing_is_refused_and_writes_nothing(
    place, command, options, says
):
    given = [one.format(place=place) for one in options]
    assert says in refusal(command, f"--config={place / 'config.py'}", *given)
    assert not (place / "x").exists()
