"""Scores and figures of a trained run, against numbers made from its images with scikit-image."""

import errno
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import jax
import numpy as np
import pytest
from helpers import rejection, tiny_config
from places import files
from scipy import stats
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from jax_kdpr import evaluate
from jax_kdpr.core import json_files, whole_files
from jax_kdpr.core.metrics import ImageScores
from jax_kdpr.evaluation import scores as evaluation
from jax_kdpr.evaluation import scoring
from jax_kdpr.evaluation.tables import TRIVIAL, advice
from jax_kdpr.recovery.refinement import Refinement
from jax_kdpr.runs.run import Run, load_run
from jax_kdpr.training import loop

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def run(recorded) -> Path:
    return recorded / "e2e"


@pytest.fixture(scope="module")
def trained(run) -> Run:
    return load_run(run)


class Scored(NamedTuple):
    evaluated: scoring.Evaluated
    result: dict  # as written
    place: Path
    images: np.ndarray  # all test images [n h w], what was recovered [n h w] and before it
    recovered: np.ndarray
    estimate: np.ndarray
    was: dict  # the run folder before, and after
    is_now: dict


@pytest.fixture(scope="module")
def scored(run, undrawn, tmp_path_factory) -> Scored:
    before, place = files(run), tmp_path_factory.mktemp("scored")
    evaluated = scoring.score_run(load_run(run), output=place, samples=32, refinement=Refinement(3))
    result = json.loads((place / "metrics.json").read_text())
    images, output, _ = evaluated.samples
    arrays = (images[..., 0], output.image[..., 0], output.estimate)
    return Scored(evaluated, result, place, *map(np.asarray, arrays), before, files(run))


def oracle(images, answers) -> dict[str, float]:
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    found = {"psnr": [], "ssim": [], "rms": []}
    for x, y in zip(images, answers, strict=True):
        found["psnr"].append(peak_signal_noise_ratio(x, y, data_range=1))
        found["ssim"].append(structural_similarity(x, y, data_range=1, **options))
        error = np.pi * (y - x - np.mean(y - x))[x >= x.min() + 0.1 * np.ptp(x)]
        found["rms"].append(np.sqrt(np.mean(error**2)))
    means = {name: np.mean(values) for name, values in found.items()}
    errors = {f"{name}_error": stats.sem(values) for name, values in found.items()}
    pooled = -10 * np.log10(np.mean((images - answers) ** 2))
    return means | errors | {"psnr_pooled": pooled, "images": len(images)}


def assert_score(scored: Scored, name: str, answers):
    for metric, value in oracle(scored.images, answers).items():
        found = scored.result["scores"][name][metric]
        np.testing.assert_allclose(found, value, rtol=2e-4, atol=2e-4, err_msg=metric)


def test_recovery_and_trivial_answers_are_scored_on_every_test_image(scored, trained):
    np.testing.assert_allclose(scored.images, trained.scenes(32)[..., 0])
    assert len(trained.dataset.test) == 32
    assert_score(scored, evaluation.RECOVERED, scored.recovered)
    train = np.asarray(trained.dataset.train(0))
    train = train / 255 if train.dtype == np.uint8 else train
    mean_image = np.broadcast_to(train.mean(axis=0), scored.images.shape)
    assert_score(scored, evaluation.MEAN_IMAGE, mean_image)
    assert_score(scored, evaluation.CONSTANT, np.full_like(scored.images, train.mean()))


def test_spectral_estimate_is_read_at_its_best_global_phase(scored):
    images = scored.images
    fields = np.exp(1j * np.pi * images)
    overlaps = np.sum(np.conj(scored.estimate) * fields, axis=(1, 2), keepdims=True)
    aligned = scored.estimate * np.exp(1j * np.angle(overlaps))
    # The error modulo a turn; up to half of what pi leaves of a turn beyond black and white clips.
    read = images + np.angle(aligned * np.conj(fields)) / np.pi
    read = np.where(np.abs(read - 0.5) < 1, np.clip(read, 0, 1), read)
    assert_score(scored, evaluation.SPECTRAL, read)


def test_refinement_starts_from_the_recovery_and_keeps_its_global_phase(scored):
    masks = np.exp(-1j * np.load(scored.place / "masks.npy")[0])
    refined = []
    for image, answer in zip(scored.images, scored.recovered, strict=True):
        modulus = np.abs(np.fft.fft2(masks * np.exp(1j * np.pi * image)))
        start = z = np.exp(1j * np.pi * answer)
        for _ in range(3):
            spectrum = np.fft.fft2(masks * z)
            z = np.conj(masks) * np.fft.ifft2(modulus * spectrum / np.abs(spectrum))
            z = z / np.abs(z)
        z = z * np.exp(1j * np.angle(np.vdot(z, start)))
        refined.append(np.clip(answer + np.angle(z * np.conj(start)) / np.pi, 0, 1))
    assert_score(scored, evaluation.REFINED, np.array(refined))
    scores = scored.result["scores"]
    # Without noise the measurement knows better than an epoch or two of training.
    assert scores[evaluation.REFINED]["psnr"] > scores[evaluation.RECOVERED]["psnr"] + 0.1


def test_results_say_where_they_come_from_and_lie_elsewhere_if_asked(scored, trained):
    result = scored.result
    said = {"regime": "e2e", "snapshots": 1, "refine": 3}
    said |= {"checkpoint_step": trained.step, "checkpoint_digest": trained.digest}
    assert said.items() <= result.items()
    assert scored.was == scored.is_now
    names = ["figure.png", "masks.npy", "metrics.json", "samples.npz", "scores.npz"]
    assert list(files(scored.place)) == names
    masks = np.load(scored.place / "masks.npy")
    assert masks.shape == (1, 16, 16) and masks.min() >= 0 and masks.max() < 2 * np.pi
    np.testing.assert_allclose(np.exp(1j * masks), np.exp(1j * trained.phases), atol=1e-6)


def rows(table: str) -> list[str]:
    """The first cells of a table in Markdown, below its header."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1
    return [line.split("|")[1].strip() for line in lines[2:]]


@pytest.mark.slow
def test_several_runs_give_one_table_and_one_figure(run, tmp_path, capsys):
    one = edited_copy(run, tmp_path / "e2e", train={"epochs": 3})
    other = shutil.copytree(run, tmp_path / "random")
    output = tmp_path / "out"
    options = [f"--workdir={one}", f"--output={output}", "--samples=2", "--refine=2"]
    evaluate.flags.FLAGS(["evaluate", *options])
    assert evaluate.main([str(other)]) == 0
    table = (output / "comparison.md").read_text()
    assert table.strip() in capsys.readouterr().out
    # Two epochs of the three that it is said to want.
    assert rows(table) == ["e2e (after 2 of 3 epochs)", "random", *TRIVIAL.values()]
    assert "gain over e2e" in table and "refined, 2 steps" in table
    assert set(json.loads((output / "comparison.json").read_text())) == {"e2e", "random"}
    assert (output / "comparison.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_run_folder_that_may_not_be_written_wants_an_output(run, tmp_path, monkeypatch):
    monkeypatch.setattr(whole_files, "obstacle", lambda folder: "read-only" * (folder == run))
    monkeypatch.setattr(evaluate, "OUTPUT", SimpleNamespace(value=None))
    assert "--output" in rejection(evaluate._place, "e2e", run)
    evaluate.OUTPUT.value = str(tmp_path)
    assert evaluate._place("e2e", run) == tmp_path / "e2e"
    assert (tmp_path / "e2e").is_dir()


@pytest.mark.parametrize(
    ("mean", "spectral", "says"),
    [(21.0, 0.0, "smaller train.batch_size"), (0.0, 21.0, "consistency_steps"), (0.0, 0.0, "")],
)
def test_a_run_that_is_worse_than_no_network_or_its_input_is_told_what_it_needs(
    scored, mean, spectral, says
):
    psnr = {"recovered": 20.0, "mean_image": mean, "spectral_estimate": spectral}
    scores = {name: {"psnr": one} for name, one in psnr.items()}
    said = advice("e2e", scored.evaluated._replace(result={"scores": scores}))
    assert says in said and bool(said) == bool(says)


def test_complex_scenes_train_and_evaluate(tmp_path):
    config = tiny_config(data__test_images=16, train__epochs=1)
    config.scene.kind = "complex"
    loop.train(config, tmp_path / "complex")
    evaluated = scoring.score_run(load_run(tmp_path / "complex"), refinement=Refinement(2))
    assert np.isfinite(evaluated.result["scores"][evaluation.REFINED]["psnr"])
    assert evaluated.samples.output.image.shape[-1] == 2


def edited_copy(run: Path, target: Path, **sections) -> Path:
    """Copies a run and changes options in the config that it has on record."""
    shutil.copytree(run, target)
    record = json_files.read_json(target / "run.json")
    for section, fields in sections.items():
        record["config"][section] |= fields
    json_files.write_json(target / "run.json", record)
    return target


def test_runs_that_share_no_table_are_refused_before_one_is_scored(run, tmp_path):
    other = edited_copy(run, tmp_path / "other", scene={"phase_range": 1.0})
    untrained = shutil.copytree(run, tmp_path / "untrained")
    shutil.rmtree(untrained / "checkpoints")
    before = files(run)
    evaluate.flags.FLAGS(["evaluate", f"--workdir={run}", "--refine=0"])
    assert "scene.phase_range: 3.14" in rejection(evaluate.main, [str(other)])
    assert "checkpoint" in rejection(evaluate.main, [str(untrained)])
    assert files(run) == before


def test_gains_are_paired_by_image():
    """One system is 1 dB better on every image: no doubt is left, however the images vary."""
    errors = np.array([1e-2, 1e-3, 1e-4, 2e-2], np.float32)
    zeros = jax.numpy.zeros(4)
    baseline = ImageScores(mse=jax.numpy.asarray(errors), ssim=zeros, rms=zeros)
    better = baseline._replace(mse=baseline.mse * 10**-0.1)
    gain, error = evaluation.paired_gain(better, baseline)
    np.testing.assert_allclose([gain, error], [1.0, 0.0], atol=1e-5)
    assert evaluation.standard_error(baseline.psnr) > 1.0


def test_the_python_of_the_readme_recovers_the_test_scenes(scored, run, capsys):
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    code = readme.split("```python")[1].split("```")[0]
    names = {}
    exec(code.replace("runs/mine", str(run)), names)
    np.testing.assert_allclose(names["scenes"][..., 0], scored.images[:4], atol=1e-6)
    np.testing.assert_allclose(names["found"].phase, np.pi * scored.recovered[:4], atol=1e-4)
    assert "(4, 16, 16)" in capsys.readouterr().out


@pytest.mark.slow
def test_noise_is_added_on_a_bench_without_errors(run, tmp_path):
    levels = {"snr_db": (20.0,), "photons": (), "images": 6}
    aligned = scoring.score_under_noise(run, **levels)
    bent = edited_copy(run, tmp_path / "run", jitter={"shift": 2.0})
    assert scoring.score_under_noise(bent, **levels) == aligned
    quiet = {name: aligned[name]["recovered"]["none"]["0"] for name in ("psnr", "rms")}
    assert aligned["psnr"]["recovered"]["gaussian"]["20"] != quiet["psnr"]
    assert 0 < quiet["rms"] < np.pi


@pytest.mark.slow
def test_a_second_scoring_that_is_cut_off_leaves_the_first(run, tmp_path, monkeypatch):
    """Whoever finds metrics.json finds the arrays of the same scoring."""
    copied = shutil.copytree(run, tmp_path / "run")
    before = files(copied)

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(scoring.pictures, "plot_run", fail)
    with pytest.raises(OSError, match="No space"):
        scoring.score_run(load_run(copied), refinement=Refinement(3))
    assert files(copied) == before
