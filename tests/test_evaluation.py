"""Scores and figures of a trained run, against numbers made from its images with scikit-image."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from commands import user_environment
from helpers import rejection, same, tiny_config
from matplotlib import style
from PIL import Image
from places import files
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from jax_kdpr import evaluate
from jax_kdpr.config import schema as config_lib
from jax_kdpr.config.schema import Config, SceneKind
from jax_kdpr.core import json_files
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.metrics import ImageScores
from jax_kdpr.data import sources
from jax_kdpr.data.batches import take_batch
from jax_kdpr.evaluation import plots, scoring
from jax_kdpr.evaluation import scores as evaluation
from jax_kdpr.evaluation.tables import comparison_table
from jax_kdpr.optics.objects import scene_field
from jax_kdpr.recovery.refinement import Refinement
from jax_kdpr.runs.run import restore
from jax_kdpr.training import loop

TEST_IMAGES = 24


def evaluated_config() -> Config:
    return tiny_config(
        data__train_images=32,
        data__validation_images=16,
        data__test_images=TEST_IMAGES,
        train__epochs=1,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "e2e"
    loop.train(evaluated_config(), folder)
    return folder


@pytest.fixture(scope="module")
def scored(run):
    """(result as written, test images [n h w], recovered images [n h w])."""
    scoring.score_run(run)
    config = evaluated_config()
    dataset = sources.load(**config_lib.data_arguments(config))
    images = take_batch(dataset.test, jax.numpy.arange(TEST_IMAGES), size=16, channels=1)
    trained = restore(run, config)
    output, _ = trained.system.apply(*trained.variables, images, jax.random.key(0))
    result = json.loads((run / "metrics.json").read_text())
    return result, np.asarray(images[..., 0]), np.asarray(output.image[..., 0]), dataset


def oracle(images, answers) -> dict[str, float]:
    psnr = [
        peak_signal_noise_ratio(x, y, data_range=1) for x, y in zip(images, answers, strict=True)
    ]
    similarity = [
        structural_similarity(
            x, y, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for x, y in zip(images, answers, strict=True)
    ]
    rms = []
    for x, y in zip(images, answers, strict=True):
        error = np.pi * (y - x - np.mean(y - x))[x >= x.min() + 0.1 * np.ptp(x)]
        rms.append(np.sqrt(np.mean(error**2)))
    return {
        "rms": np.mean(rms),
        "rms_error": np.std(rms, ddof=1) / np.sqrt(len(rms)),
        "psnr": np.mean(psnr),
        "psnr_error": np.std(psnr, ddof=1) / np.sqrt(len(psnr)),
        "psnr_pooled": -10 * np.log10(np.mean((images - answers) ** 2)),
        "ssim": np.mean(similarity),
        "ssim_error": np.std(similarity, ddof=1) / np.sqrt(len(similarity)),
        "images": len(psnr),
    }


def assert_score(score, expected):
    for name, value in expected.items():
        np.testing.assert_allclose(score[name], value, rtol=2e-4, atol=2e-4, err_msg=name)


def test_recovery_is_scored_on_every_test_image(scored):
    result, images, recovered, _ = scored
    assert_score(result["scores"][evaluation.RECOVERED], oracle(images, recovered))


def test_trivial_baselines_come_from_the_training_images(scored):
    result, images, _, dataset = scored
    train = np.asarray(dataset.train(0))
    mean_image = np.broadcast_to(train.mean(axis=0), images.shape)
    constant = np.full_like(images, train.mean())
    assert_score(result["scores"][evaluation.MEAN_IMAGE], oracle(images, mean_image))
    assert_score(result["scores"][evaluation.CONSTANT], oracle(images, constant))


def test_spectral_estimate_is_read_at_its_best_global_phase(scored, run):
    result, images, _, _ = scored
    trained = restore(run, evaluated_config())
    output, _ = trained.system.apply(
        *trained.variables, jax.numpy.asarray(images[..., None]), jax.random.key(0)
    )
    fields = jax.vmap(lambda x: scene_field(x, kind="phase"))(jax.numpy.asarray(images[..., None]))
    fields = np.asarray(fields)
    aligned = np.array(
        [
            z * np.exp(1j * np.angle(np.vdot(z, x)))
            for z, x in zip(np.asarray(output.estimate), fields, strict=True)
        ]
    )
    # The error modulo a turn; up to half of what pi leaves of a turn beyond black and white clips.
    read = images + np.angle(aligned * np.conj(fields)) / np.pi
    read = np.where(np.abs(read - 0.5) < 1, np.clip(read, 0, 1), read)
    assert_score(result["scores"][evaluation.SPECTRAL], oracle(images, read))


def test_refinement_starts_from_the_recovery_and_keeps_its_global_phase(scored, run, tmp_path):
    _, images, recovered, _ = scored
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    result = scoring.score_run(copy, refinement=Refinement(3)).result
    assert result["refine"] == 3
    masks = np.exp(-1j * np.load(copy / "masks.npy")[0])
    refined = []
    for image, answer in zip(images, recovered, strict=True):
        modulus = np.abs(np.fft.fft2(masks * np.exp(1j * np.pi * image)))
        start = z = np.exp(1j * np.pi * answer)
        for _ in range(3):
            spectrum = np.fft.fft2(masks * z)
            z = np.conj(masks) * np.fft.ifft2(modulus * spectrum / np.abs(spectrum))
            z = z / np.abs(z)
        z = z * np.exp(1j * np.angle(np.vdot(z, start)))
        refined.append(np.clip(answer + np.angle(z * np.conj(start)) / np.pi, 0, 1))
    assert_score(result["scores"][evaluation.REFINED], oracle(images, np.array(refined)))
    gain = result["scores"][evaluation.REFINED]["psnr"] - oracle(images, recovered)["psnr"]
    assert gain > 0.1  # without noise the measurement knows better than one epoch of training


def test_result_says_where_it_comes_from(scored, run):
    result = scored[0]
    assert (result["regime"], result["snapshots"], result["checkpoint_step"]) == ("e2e", 1, 2)
    assert result["refine"] == 0 and evaluation.REFINED not in result["scores"]
    assert result["checkpoint_digest"] == restore(run, evaluated_config()).digest
    assert {"time", "commit", "versions", "devices"} <= set(result["provenance"])
    with Image.open(run / "figure.png") as figure:
        assert np.asarray(figure.convert("L")).std() > 20


def test_several_runs_give_one_table_and_one_figure(scored, run, tmp_path, capsys):
    random = edited_copy(run, tmp_path / "random")
    output = tmp_path / "out"
    options = [f"--workdir={run}", f"--output={output}", "--samples=2", "--refine=2"]
    evaluate.flags.FLAGS(["evaluate", *options])
    assert evaluate.main([str(random)]) == 0
    table = (output / "comparison.md").read_text()
    assert table.strip() in capsys.readouterr().out
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "e2e",
        "random",
        "mean training image",
        "constant",
    ]
    assert len({len(line) for line in lines}) == 1
    assert "gain over e2e" in lines[0] and "refined, 2 steps" in lines[0]
    assert set(json.loads((output / "comparison.json").read_text())) == {"e2e", "random"}
    assert (output / "comparison.png").stat().st_size > 10_000


def test_complex_scenes_train_and_evaluate(tmp_path):
    config = evaluated_config()
    config.scene.kind = SceneKind.COMPLEX
    loop.train(config, tmp_path / "complex")
    evaluated = scoring.score_run(tmp_path / "complex", refinement=Refinement(2))
    assert np.isfinite(evaluated.result["scores"][evaluation.REFINED]["psnr"])
    assert evaluated.samples.output.image.shape[-1] == 2
    assert evaluated.result["scores"][evaluation.CONSTANT]["psnr"] > 0


def test_a_run_without_checkpoint_is_refused_before_others_are_scored(run, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "run.json").write_text((run / "run.json").read_text())
    written = (run / "metrics.json").stat().st_mtime_ns if (run / "metrics.json").exists() else 0
    evaluate.flags.FLAGS(["evaluate", f"--workdir={run}", "--refine=0"])
    with pytest.raises(InputError, match="no checkpoint yet"):
        evaluate.main([str(empty)])
    if written:
        assert (run / "metrics.json").stat().st_mtime_ns == written


def test_gains_are_paired_by_image():
    """One system is 1 dB better on every image: no doubt is left, however the images vary."""
    errors = np.array([1e-2, 1e-3, 1e-4, 2e-2], np.float32)
    zeros = jax.numpy.zeros(4)
    baseline = ImageScores(mse=jax.numpy.asarray(errors), ssim=zeros, rms=zeros)
    better = baseline._replace(mse=baseline.mse * 10**-0.1)
    gain, error = evaluation.paired_gain(better, baseline)
    np.testing.assert_allclose([gain, error], [1.0, 0.0], atol=1e-5)
    assert evaluation.standard_error(baseline.psnr) > 1.0


def edited_copy(run: Path, target: Path, **sections) -> Path:
    """Copies a run and changes options in the config that it has on record."""
    shutil.copytree(run, target)
    record = json.loads((target / "run.json").read_text())
    for section, fields in sections.items():
        record["config"][section] |= fields
    (target / "run.json").write_text(json.dumps(record))
    return target


def test_an_unfinished_run_is_marked_in_the_table(run, tmp_path):
    copy = edited_copy(run, tmp_path / "unfinished", train={"epochs": 3})
    table = comparison_table({"unfinished": scoring.score_run(copy)})
    assert "unfinished (after 1 of 3 epochs)" in table


def test_runs_of_different_scenes_share_no_table(run, tmp_path):
    other = edited_copy(run, tmp_path / "other", scene={"phase_range": 1.0})
    evaluate.flags.FLAGS(["evaluate", f"--workdir={run}", "--refine=0"])
    with pytest.raises(InputError, match=r"scene.phase_range: 3.14.* against 1.0"):
        evaluate.main([str(other)])


def test_masks_are_written_as_phases_in_one_turn(scored, run):
    masks = np.load(run / "masks.npy")
    phases = np.asarray(restore(run, evaluated_config()).variables[0]["phases"])
    assert masks.shape == (1, 16, 16) and masks.min() >= 0 and masks.max() < 2 * np.pi
    np.testing.assert_allclose(np.exp(1j * masks), np.exp(1j * phases), atol=1e-6)


def test_the_python_of_the_readme_recovers_the_test_scenes(scored, run, capsys):
    _, images, recovered, _ = scored
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    code = readme.split("```python")[1].split("```")[0]
    names = {}
    exec(code.replace("runs/mine", str(run)), names)
    np.testing.assert_allclose(names["scenes"][..., 0], images[:4], atol=1e-6)
    np.testing.assert_allclose(names["found"].phase, np.pi * recovered[:4], atol=1e-4)
    assert "(4, 16, 16)" in capsys.readouterr().out


def test_noise_is_added_on_a_bench_without_errors(teacher, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(teacher, run)
    levels = {"snr_db": (20.0,), "photons": (), "images": 6}
    aligned = scoring.score_under_noise(run, **levels)
    record = json_files.read_json(run / "run.json")
    record["config"]["jitter"]["shift"] = 2.0
    json_files.write_json(run / "run.json", record)
    assert scoring.score_under_noise(run, **levels) == aligned
    quiet = {name: aligned[name]["recovered"]["none"]["0"] for name in ("psnr", "rms")}
    assert aligned["psnr"]["recovered"]["gaussian"]["20"] != quiet["psnr"]
    assert 0 < quiet["rms"] < np.pi


def test_a_second_scoring_that_is_cut_off_leaves_the_first(recorded, tmp_path, monkeypatch):
    """Whoever finds metrics.json finds the arrays of the same scoring."""
    run = tmp_path / "run"
    shutil.copytree(recorded / "e2e", run)
    before = files(run)

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(scoring.pictures, "plot_run", fail)
    with pytest.raises(OSError, match="No space"):
        scoring.score_run(run, refinement=Refinement(3))
    assert files(run) == before


def test_a_run_folder_that_may_not_be_written_is_refused_or_left_alone(
    teacher, tmp_path, monkeypatch
):
    writable = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: Path(path) != teacher and writable(path, mode)
    )
    assert "--output" in rejection(evaluate._place, "teacher", teacher, None)
    place = evaluate._place("teacher", teacher, str(tmp_path))
    before = files(teacher)
    scoring.score_run(teacher, output=place)
    assert files(teacher) == before
    names = ["figure.png", "masks.npy", "metrics.json", "samples.npz", "scores.npz"]
    assert list(files(place)) == names


def test_figures_do_not_depend_on_a_users_settings(tmp_path):
    lines = {"one": plots.Line([0.0, 1.0], [1.0, 2.0])}
    plots.plot_lines(lines, tmp_path / "own.png", x_label="x")
    with style.context({"text.usetex": True, "axes.facecolor": "red", "font.size": 30.0}):
        plots.plot_lines(lines, tmp_path / "theirs.png", x_label="x")
    one, other = (Image.open(tmp_path / f"{name}.png") for name in ("own", "theirs"))
    assert same(one, other)


def test_the_backend_of_a_notebook_that_is_not_here_breaks_nothing():
    code = "from jax_kdpr.core import figures; figures.Figure().savefig('/dev/null', format='png')"
    environment = user_environment(MPLBACKEND="module://not_here.backend")
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
