"""Scores of trained systems.

`score_run` writes the scores that every run is judged by, beside its checkpoints.
`score_under_noise` returns its scores under noise that it may not have been trained with.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jax_kdpr.config.schema import Config
from jax_kdpr.core import json_files, whole_files
from jax_kdpr.core.metrics import ImageScores, psnr_from_mse
from jax_kdpr.core.options import changed
from jax_kdpr.core.provenance import provenance
from jax_kdpr.core.sharding import data_parallel
from jax_kdpr.core.types import Images, Intensities, Key
from jax_kdpr.data.pages.stacks import read_arrays
from jax_kdpr.evaluation import pictures
from jax_kdpr.evaluation import scores as evaluation
from jax_kdpr.evaluation.scores import RECOVERED, Samples, make_score, summarise
from jax_kdpr.optics.cdp import Optics
from jax_kdpr.optics.masks import wrap_phases
from jax_kdpr.optics.noise import NoiseOptions, add_noise
from jax_kdpr.recovery.refinement import NO_REFINEMENT, Refinement
from jax_kdpr.recovery.system import Output
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.run import Run, load_run, run_keys

SCORES_FILE = "metrics.json"
SCORES = {
    **{"epochs": int, "checkpoint_digest": str},
    "scores": {str: dict.fromkeys(("psnr", "ssim", "rms"), float)},
    **{"refine": int, "refine_with": str, "refine_tv": float},
}
IMAGE_SCORES_FILE = "scores.npz"
MSE = f"{RECOVERED}_mse"  # an array in this file
SAMPLES_FILE = "samples.npz"
MASKS_FILE = "masks.npy"
FIGURE_FILE = "figure.png"
FILES = (IMAGE_SCORES_FILE, MASKS_FILE, SAMPLES_FILE, FIGURE_FILE, SCORES_FILE)
UnderNoise = dict[str, dict[str, dict[str, float]]]  # {answer: {noise: {level: mean}}}


class Evaluated(NamedTuple):
    """One run and its results."""

    config: Config
    scores: dict[str, ImageScores]
    samples: Samples
    result: dict[str, Any]  # as written to metrics.json


def score_run(
    run: Run,
    *,
    output: Path | None = None,
    samples: int = 4,
    refinement: Refinement = NO_REFINEMENT,
) -> Evaluated:
    """Scores one run on its test images.

    It writes metrics.json (means), scores.npz (image by image), samples.npz and figure.png (the
    first scenes), and masks.npy. If one of them cannot be written, none is.

    Args:
        run: A trained run, as it is: it may have been changed since it was restored.
        output: Folder for these files; None for the run folder.
        samples: Number of test scenes in the figure.
        refinement: Refinement of the network's images, which is then scored too.

    Raises:
        InputError: If its data are missing or have changed.
    """
    output = output or run.workdir
    output.mkdir(parents=True, exist_ok=True)
    config = run.config
    key = run_keys(config.seed).evaluation
    scores = evaluation.score_test_images(run, key=key, refinement=refinement)
    shown = evaluation.sample_outputs(run, run.scenes(samples), key=key)
    result = {
        "regime": config.regime,
        "snapshots": config.masks.snapshots,
        "epochs": run_folder.epochs_done(run.workdir),
        "checkpoint_step": run.step,
        "checkpoint_digest": run.digest,
        "refine": refinement.steps,
        "refine_with": refinement.solver,
        "refine_tv": refinement.tv,
        "scores": {name: summarise(score)._asdict() for name, score in scores.items()},
        "provenance": provenance(),
    }
    per_image: dict[str, Any] = {
        f"{name}_{metric}": np.asarray(values)
        for name, score in scores.items()
        for metric, values in score._asdict().items()
    }
    masks = np.asarray(wrap_phases(shown.phases))
    psnr = summarise(scores[RECOVERED]).psnr
    arrays = {"images": shown.images, "phases": shown.phases, **shown.output._asdict()}
    kept: dict[str, Any] = {name: np.asarray(value) for name, value in arrays.items()}
    writes = {
        IMAGE_SCORES_FILE: lambda file: np.savez(file, **per_image),
        MASKS_FILE: lambda file: np.save(file, masks),
        SAMPLES_FILE: lambda file: np.savez_compressed(file, **kept),
    }
    with whole_files.staging(output) as staging:
        for name, write in writes.items():
            whole_files.write_whole(staging / name, write)
        pictures.plot_run(
            shown,
            staging / FIGURE_FILE,
            scene=run.camera.scene,
            axis=run.camera.axis,
            title=(
                f"{config.regime}, {config.masks.snapshots} shot(s): mean PSNR of "
                f"{len(run.dataset.test):,} test images {psnr:.2f} dB"
            ),
            pitch=config.propagation.pitch,
        )
        json_files.write_json(staging / SCORES_FILE, result)
        # It is removed first and comes last: where it is, the others are of the same scoring.
        (output / SCORES_FILE).unlink(missing_ok=True)
        for name in FILES:
            (staging / name).replace(output / name)
    return Evaluated(config, scores, shown, result)


def noise_levels(
    snr_db: tuple[float, ...], photons: tuple[float, ...]
) -> dict[str, tuple[float, ...]]:
    """Returns {kind of noise: levels} of `score_under_noise`, with "none" for no noise."""
    return {"none": (0.0,), "gaussian": snr_db, "poisson": photons}


def score_under_noise(
    workdir: Path,
    *,
    snr_db: tuple[float, ...],
    photons: tuple[float, ...],
    images: int,
    refinement: Refinement = NO_REFINEMENT,
) -> dict[str, UnderNoise]:
    """Scores one run from CDPs with sensor noise, which has the same random keys at every level.

    The bench is as designed, without the noise and the errors that the run was trained with.

    The levels are `snr_db` of Gaussian noise (dB) and `photons` of Poisson noise (in a shot). Only
    the first `images` test images are scored.

    Returns:
        {"psnr": means in dB, "rms": means over the object (`ImageScores.rms`)}. Each has, for
        RECOVERED, and for REFINED if there are steps, {"gaussian": {level: mean}, "poisson": {...},
        "none": {"0": ...}}.

    Raises:
        InputError: If the folder holds no run that can be restored, or its data have changed.
    """
    run = load_run(workdir)
    quiet, key = run.camera.quiet, run_keys(run.config.seed).evaluation
    found: dict[str, UnderNoise] = {"psnr": {}, "rms": {}}
    for kind, values in noise_levels(snr_db, photons).items():
        options = NoiseOptions(kind=kind)

        # Each device draws its own part. A Poisson draw is a loop of unknown length: devices that
        # shared one loop would have to agree in every round.
        def noisy(level, y, key, options=options):
            return add_noise(key, y, changed(options, snr_db=level, photons=level))

        def shoot(optics: Optics, images: Images, key: Key, level, noisy=noisy) -> Intensities:
            clean_key, noise_key = jax.random.split(key)
            clean = quiet.measure(optics, images, clean_key)
            keys = jax.random.split(noise_key, len(images))
            return data_parallel(noisy, quiet.mesh)(level, clean, keys)

        score = make_score(run, run.dataset.test[:images], shoot, refinement=refinement)
        for level in values:  # the level is an argument, so one program serves all
            for answer, scores in score(jnp.float32(level), key).items():
                means = summarise(scores)
                for metric, table in found.items():
                    of_kind = table.setdefault(answer, {}).setdefault(kind, {})
                    of_kind[f"{level:g}"] = getattr(means, metric)
    return found


def read_image_psnr(workdir: Path) -> Float[np.ndarray, "n"]:
    """Returns the PSNR of each recovered test image, in dB, from the file of `score_run`.

    Raises:
        InputError: If the file cannot be read.
    """
    errors = read_arrays(workdir / IMAGE_SCORES_FILE, [MSE])[MSE]
    return np.asarray(psnr_from_mse(jnp.asarray(errors)))


def read_samples(workdir: Path) -> Samples:
    """Returns the scenes that `score_run` wrote, and what the system made of them.

    Raises:
        InputError: If the file cannot be read.
    """
    arrays = read_arrays(workdir / SAMPLES_FILE, ["images", "phases", *Output._fields])
    read = {name: jnp.asarray(array) for name, array in arrays.items()}
    output = Output(**{field: read[field] for field in Output._fields})
    return Samples(read["images"], output, read["phases"])
