"""Verifies mask files: measures the run's test images through the masks that the files hold.

The measurement uses the phases of the file, while the recovery assumes the trained masks, as on a
bench. For comparison, the same images are measured through the trained masks, with the same draws
of sensor noise and errors of the bench.
"""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Complex, Float

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.metrics import ImageScores, rms_unit
from jax_kdpr.core.options import changed
from jax_kdpr.core.sharding import replicate
from jax_kdpr.core.types import Images, Intensities, Key, Phases
from jax_kdpr.evaluation.scores import RECOVERED, Summary, make_score, paired_gain, summarise
from jax_kdpr.optics.cdp import Optics
from jax_kdpr.optics.device import TURN, DeviceOptions
from jax_kdpr.optics.mask_files.reading import ERROR, SHOWN, MaskFile, read_mask_file
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.run import load_run, run_keys

Stack = Float[np.ndarray, "k h w"]
CLEARER = 0.02  # least gain in correlation with the trained masks when a mistake is undone
ALIKE = 0.5  # least correlation after that; unrelated masks have next to none
ROUGH = 0.05  # radians: the rounding error of 64 levels on the circle
TIMES = "times what they should be (gray level at 2 pi, wavelength or index)"


class Verdict(NamedTuple):
    """How well the run recovers its test images through a file."""

    trained: Summary  # through the trained masks
    found: Summary  # through the file's
    rms_unit: str  # of both: " rad", or "" for an amplitude scene
    loss: float  # loss of PSNR, dB
    loss_error: float  # its standard error, paired by image
    mistake: str  # what explains the loss best, in words; "" if nothing does or the loss is small
    rounding: float  # radians: largest error of the levels of an unchanged file
    notes: list[str]  # what is unusual about the files, a line each


def verify_files(
    workdir: Path,
    paths: list[Path],
    *,
    images: int = 1000,
    max_loss: float = 0.1,
    data_dir: str = "",
) -> Verdict:
    """Measures the test images of a run through the masks that files hold.

    Masks that are in none of the files are the trained ones. If the loss is too large, the usual
    mistakes (sign, orientation, place, scale) are tried.

    Args:
        workdir: Run folder.
        paths: Mask files, each with its sidecar.
        images: Number of test images; 0 for all.
        max_loss: Largest loss in dB that passes.
        data_dir: Where the run's data lie now; empty if they have not moved since the training.

    Raises:
        InputError: If a file or the run cannot be read, or they do not belong together.
    """
    config = run_folder.read_config(workdir)
    files = {path: read_mask_file(path) for path in paths}
    _require_fitting(files, snapshots=config.masks.snapshots, size=config.data.size)
    run = load_run(workdir, data_dir=data_dir)
    # The masks of a file have passed through levels and super-pixels already.
    ideal = DeviceOptions()
    shows = changed(
        run.camera.device,
        **{name: getattr(ideal, name) for name in ("levels", "table", "phase_range", "superpixel")},
    )
    bench = replace(run.camera, device=shows)

    def shoot(optics: Optics, images: Images, key: Key, phases: Phases) -> Intensities:
        return bench.measure(bench.optics(phases), images, key)

    score_through = make_score(run, run.dataset.test[: images or None], shoot)

    def score(phases: Stack, name: str) -> ImageScores:
        through = replicate(jnp.asarray(phases, jnp.float32), run.camera.mesh)
        key = run_keys(config.seed).evaluation
        return score_through(through, key, desc=name)[RECOVERED]

    wanted = np.asarray(run.camera.written(run.phases))
    held = wanted.astype(float)
    for file in files.values():
        held[file.numbers] = file.phases
    reference, found = score(wanted, "trained masks"), score(held, "file")
    gain, error = paired_gain(found, reference)
    numbers = [number for file in files.values() for number in file.numbers]
    mistake = ""
    if -gain > max_loss:
        mistake = find_mistake(held[numbers], wanted[numbers].astype(float))
    intact = [file.sidecar.get(ERROR, 0.0) for file in files.values() if not file.changed]
    return Verdict(
        trained=summarise(reference),
        found=summarise(found),
        rms_unit=rms_unit(config.scene.kind),
        loss=-gain,
        loss_error=error,
        mistake=mistake,
        rounding=max(intact, default=0.0),
        notes=_notes(files, run.digest),
    )


def find_mistake(found: Stack, wanted: Stack) -> str:
    """Returns in words the mistake that was most likely made, the same for all masks of a file.

    It tries the conjugate, the eight orientations of a square, each with both signs, a circular
    shift, and a factor on the phases. It names the mistake whose undoing gives the largest
    correlation with the trained phasors. A constant phase changes neither this correlation
    nor any intensity. The result is "" if nothing agrees clearly better than the masks as they are.
    """
    orientations = _orientations(found)
    tried = {"": found, "of the wrong sign": -found} | orientations
    tried |= {f"of the wrong sign and {words}": -turned for words, turned in orientations.items()}
    agreement = {words: _agreement(phases, wanted) for words, phases in tried.items()}
    row, column = _shift(found, wanted)
    if (row, column) != (0, 0):
        moved_back = np.roll(found, (-row, -column), axis=(1, 2))
        agreement[f"moved by {row} rows and {column} columns"] = _agreement(moved_back, wanted)
    for factor in np.geomspace(0.4, 2.5, 184).round(3).tolist():
        # The factor scales the phase that the device adds, in [0, 2 pi): phi or -phi.
        added = (-factor * np.mod(-found, TURN), factor * np.mod(found, TURN))
        agreement[f"{1 / factor:.2f} {TIMES}"] = max(_agreement(one, wanted) for one in added)
    best = max(agreement, key=lambda words: agreement[words])
    return best if agreement[best] >= max(ALIKE, agreement[""] + CLEARER) else ""


def verdict_line(verdict: Verdict) -> str:
    """Returns the scores through both kinds of masks, and the loss, in one line."""
    (trained, trained_rms), (found, found_rms) = (
        (f"{one.psnr:.2f} dB", f"{one.rms:.3f}{verdict.rms_unit}")
        for one in (verdict.trained, verdict.found)
    )
    return (
        f"PSNR over {verdict.found.images:,} test images, and rms over the object: trained masks "
        f"{trained}, {trained_rms}; file {found}, {found_rms}; loss {verdict.loss:.3f} ± "
        f"{verdict.loss_error:.3f} dB"
    )


def explain(verdict: Verdict) -> str:
    """Returns in one line what the loss of a file may come from."""
    misses = verdict.rounding > ROUGH
    # A device that does not reach 2 pi looks like one whose phases have another scale.
    if verdict.mistake and not (misses and verdict.mistake.endswith(TIMES)):
        return f"the masks look {verdict.mistake}"
    if misses:
        return (
            f"the levels of the file are up to {verdict.rounding:.2g} rad off the trained phases; "
            "give it more levels, or train on those of the device (device.levels, device.table)"
        )
    return (
        "neither sign nor orientation, shift or scale explains it; it may be another "
        "look-up table, another mask or checkpoint, or a correction that was added"
    )


def _require_fitting(files: dict[Path, MaskFile], *, snapshots: int, size: int) -> None:
    left = set(range(snapshots))
    for path, file in files.items():
        if file.phases.shape[1:] != (size, size):
            height, width = file.phases.shape[1:]
            raise InputError(
                f"{path}: expected a mask of the run's {size}x{size} pixels, got {height}x{width}; "
                "give the --workdir that it was exported from"
            )
        for number in file.numbers:
            if number not in left:
                raise InputError(
                    f"{path}: holds mask {number}; expected each of the {snapshots} of the run, "
                    "from 0 on, once at most; give the --workdir that it was exported from"
                )
            left.remove(number)


def _notes(files: dict[Path, MaskFile], digest: str) -> list[str]:
    notes = []
    for path, file in files.items():
        if file.changed:
            notes.append(f"{path} was changed after its export")
        if SHOWN in file.sidecar:
            shown = file.sidecar[SHOWN]["file"]
            notes.append(f"{path.name}, the mask alone, is measured; {shown}, to be shown, is not")
        if file.sidecar.get("run", {}).get("checkpoint_digest") != digest:
            notes.append(f"{path} was exported from another checkpoint than the run's best")
    return notes


def _orientations(masks: Stack) -> dict[str, Stack]:
    """Returns the seven other orientations of a square; each undoes what its name says."""
    transposed = masks.transpose(0, 2, 1)
    return {
        "flipped vertically": masks[:, ::-1],
        "flipped horizontally": masks[:, :, ::-1],
        "turned by 180 degrees": masks[:, ::-1, ::-1],
        "transposed": transposed,
        "turned by 90 degrees counter-clockwise": np.rot90(masks, -1, axes=(1, 2)),
        "turned by 90 degrees clockwise": np.rot90(masks, 1, axes=(1, 2)),
        "transposed and turned by 180 degrees": transposed[:, ::-1, ::-1],
    }


def _shift(found: Stack, wanted: Stack) -> tuple[int, int]:
    """Returns the circular shift (rows, columns) from `wanted` to `found` that fits best."""
    spectra = np.fft.fft2(_phasors(found)) * np.conj(np.fft.fft2(_phasors(wanted)))
    overlap = np.abs(np.fft.ifft2(spectra)).sum(axis=0)
    row, column = (int(place) for place in np.unravel_index(np.argmax(overlap), overlap.shape))
    height, width = overlap.shape
    return (row + height // 2) % height - height // 2, (column + width // 2) % width - width // 2


def _agreement(one: Stack, other: Stack) -> float:
    """Returns the mean over masks of abs(mean(e^{j (one - other)})): 1 if equal up to a piston."""
    return float(np.mean(np.abs(np.mean(_phasors(one - other), axis=(1, 2)))))


def _phasors(phases: Stack) -> Complex[np.ndarray, "k h w"]:
    return np.exp(1j * phases)
