"""Scores of a run folder's trained system, written beside its checkpoints.

`score_run` writes what every run is judged by; `score_under_noise` how it stands noise that it may
not have been trained with.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jax_kdpr.config.schema import Config
from jax_kdpr.core import json_files, whole_files
from jax_kdpr.core.json_files import Maybe
from jax_kdpr.core.metrics import ImageScores, psnr_from_mse
from jax_kdpr.data.pages.stacks import read_arrays
from jax_kdpr.evaluation import pictures
from jax_kdpr.evaluation import scores as evaluation
from jax_kdpr.evaluation.scores import RECOVERED, Samples, summarise
from jax_kdpr.optics.masks import wrap_phases
from jax_kdpr.recovery.refinement import NO_REFINEMENT, Refinement
from jax_kdpr.recovery.system import Output
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.run import load_run, run_keys

SCORES_FILE = "metrics.json"
SCORES = {
    **{"epochs": int, "checkpoint_digest": str, "scores": {str: {"psnr": float, "ssim": float}}},
    **{"refine": Maybe(int), "refine_with": Maybe(str), "refine_tv": Maybe(float)},
}
IMAGE_SCORES_FILE = "scores.npz"
SAMPLES_FILE = "samples.npz"
MASKS_FILE = "masks.npy"
FIGURE_FILE = "figure.png"
FILES = (IMAGE_SCORES_FILE, MASKS_FILE, SAMPLES_FILE, FIGURE_FILE, SCORES_FILE)
UnderNoise = dict[str, dict[str, dict[str, float]]]  # answer: noise: level: mean
STAGING = "scoring-"  # and random letters: where files wait until all of them are made


class Evaluated(NamedTuple):
    """One run and its results."""

    config: Config
    epochs: int  # finished
    scores: dict[str, ImageScores]
    samples: Samples
    result: dict[str, Any]  # as written to metrics.json


def score_run(
    workdir: Path,
    *,
    output: Path | None = None,
    samples: int = 4,
    refinement: Refinement = NO_REFINEMENT,
    solvers: tuple[str, ...] = (),
    solver_steps: int = 200,
    data_dir: str = "",
) -> Evaluated:
    """Scores one run on its test images.

    Writes metrics.json (means), scores.npz (image by image), samples.npz and figure.png (the first
    scenes) and masks.npy: all of them or, if one cannot be written, none.

    Args:
        workdir: Its run folder.
        output: A folder for what is written; None for the run folder.
        samples: Number of test scenes in the figure.
        refinement: Of the network's images, which are then scored too.
        solvers: Solvers (`recovery.solvers`) to score beside, from the spectral estimate.
        solver_steps: Steps of each of them.
        data_dir: Where its data lie now; empty for where they were when it was trained.

    Raises:
        InputError: If it is no run, has no readable checkpoint, or its data have changed.
    """
    output = output or workdir
    output.mkdir(parents=True, exist_ok=True)
    run = load_run(workdir, data_dir=data_dir)
    config = run.config
    key = run_keys(config.seed).evaluation
    scores = evaluation.score_test_images(
        run,
        key=key,
        refinement=refinement,
        solvers=solvers,
        solver_steps=solver_steps,
    )
    shown = evaluation.sample_outputs(run, count=min(samples, len(run.dataset.test)), key=key)
    epochs = run_folder.epochs_done(workdir)
    result = {
        "regime": config.regime,
        "snapshots": config.masks.snapshots,
        "epochs": epochs,
        "checkpoint_step": run.step,
        "checkpoint_digest": run.digest,
        "refine": refinement.steps,
        "refine_with": refinement.solver,
        "refine_tv": refinement.tv,
        "solver_steps": solver_steps if solvers else 0,
        "scores": {name: summarise(score)._asdict() for name, score in scores.items()},
        "provenance": run_folder.provenance(),
    }
    per_image: dict[str, Any] = {
        f"{name}_{metric}": np.asarray(values)
        for name, score in scores.items()
        for metric, values in score._asdict().items()
    }
    masks = np.asarray(wrap_phases(shown.phases))
    psnr = summarise(scores[RECOVERED]).psnr
    camera = run.camera
    with whole_files.staging(output, STAGING) as staging:
        whole_files.write_whole(
            staging / IMAGE_SCORES_FILE, lambda file: np.savez(file, **per_image)
        )
        whole_files.write_whole(staging / MASKS_FILE, lambda file: np.save(file, masks))
        _save_samples(staging / SAMPLES_FILE, shown)
        pictures.plot_run(
            shown,
            staging / FIGURE_FILE,
            scene=camera.scene,
            axis=camera.axis,
            title=(
                f"{config.regime}, {config.masks.snapshots} shot(s): mean PSNR of "
                f"{len(run.dataset.test):,} test images {psnr:.2f} dB"
            ),
            pitch=config.propagation.pitch,
        )
        json_files.write_json(staging / SCORES_FILE, result)
        # First gone, and last there: whoever finds it finds the others too, of the same scoring.
        (output / SCORES_FILE).unlink(missing_ok=True)
        for name in FILES:
            (staging / name).replace(output / name)
    return Evaluated(config, epochs, scores, shown, result)


def noise_levels(
    snr_db: tuple[float, ...], photons: tuple[float, ...]
) -> dict[str, tuple[float, ...]]:
    """Returns {kind of noise: levels} of `score_under_noise`, the quiet bench among them."""
    return {"none": (0.0,), "gaussian": snr_db, "poisson": photons}


def score_under_noise(
    workdir: Path,
    *,
    snr_db: tuple[float, ...],
    photons: tuple[float, ...],
    images: int,
    refinement: Refinement = NO_REFINEMENT,
    data_dir: str = "",
) -> dict[str, UnderNoise]:
    """Scores one run on its first test images at each noise level; the network stays as it is.

    The bench is the design's: without the noise and the errors that the run was trained with.

    Args:
        workdir: Its run folder.
        snr_db: Levels of Gaussian noise, dB.
        photons: Levels of Poisson noise, photons a shot.
        images: Number of test images.
        refinement: As of `score_run`.
        data_dir: Where its data lie now.

    Returns:
        {"psnr": means in dB, "rms": means over the object (`ImageScores.rms`)}; each for
        "recovered", and "refined" if there are steps, {"gaussian": {level: mean}, "poisson": {...},
        "none": {"0": ...}}.

    Raises:
        InputError: As `score_run`.
    """
    run = load_run(workdir, data_dir=data_dir)
    found = evaluation.score_under_noise(
        run,
        run.dataset.test[:images],
        levels=noise_levels(snr_db, photons),
        key=run_keys(run.config.seed).evaluation,
        refinement=refinement,
    )
    return {
        metric: {
            answer: {
                kind: {
                    f"{level:g}": getattr(summarise(score), metric)
                    for level, score in scores.items()
                }
                for kind, scores in kinds.items()
            }
            for answer, kinds in found.items()
        }
        for metric in ("psnr", "rms")
    }


def read_image_psnr(workdir: Path, name: str = RECOVERED) -> Float[np.ndarray, "n"]:
    """Returns the PSNR of each test image, dB, from what `score_run` wrote.

    Raises:
        InputError: If it cannot be read.
    """
    mse = f"{name}_mse"
    errors = read_arrays(workdir / IMAGE_SCORES_FILE, [mse])[mse]
    return np.asarray(psnr_from_mse(jnp.asarray(errors)))


def read_samples(workdir: Path) -> Samples:
    """Returns the scenes that `score_run` wrote, and what the system made of them.

    Raises:
        InputError: If they cannot be read.
    """
    arrays = read_arrays(workdir / SAMPLES_FILE, ["images", "phases", *Output._fields])
    read = {name: jnp.asarray(array) for name, array in arrays.items()}
    output = Output(**{field: read[field] for field in Output._fields})
    return Samples(read["images"], output, read["phases"])


def _save_samples(path: Path, samples: Samples) -> None:
    arrays = {"images": samples.images, "phases": samples.phases, **samples.output._asdict()}
    named: dict[str, Any] = {name: np.asarray(value) for name, value in arrays.items()}
    whole_files.write_whole(path, lambda file: np.savez_compressed(file, **named))
