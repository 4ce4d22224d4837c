"""All frames of a bench, batch by batch, to files and to the rows of results.json."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jax_kdpr.core import signals
from jax_kdpr.core.progress import progress
from jax_kdpr.core.types import Image, Images
from jax_kdpr.lab.frames import results
from jax_kdpr.lab.frames.measured import Measured, Setup, measure_frames
from jax_kdpr.lab.frames.reading import Frame
from jax_kdpr.lab.frames.recovery import Recover
from jax_kdpr.lab.frames.trust import frame_warnings, stack_warnings
from jax_kdpr.optics.objects import scene_parts
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.run import Run

Row = dict[str, Any]  # of one object in results.json
SAVE_SECONDS = 5.0  # between writings of results.json


def reconstruct(
    groups: list[tuple[Frame, ...]],
    setup: Setup,
    run: Run,
    recover: Recover,
    output: Path,
    *,
    batch_size: int,
    limit: Callable[[int], float],
    settings: dict[str, Any],
    notes: tuple[str, ...] = (),
    stack: bool = False,
    pitch: float = 0.0,
    truth: Images | None = None,
    rows: tuple[Row, ...] = (),
) -> dict[str, Any]:
    """Recovers and writes every object that is not done yet; returns what results.json holds.

    Its rows stand in the order of `groups`, as the objects of a stack do.

    Memory holds one batch. results.json is written every few seconds and when the call is
    interrupted (not of a stack, whose files are not there before the end), so that it can go on.

    Args:
        groups: The frames of each object.
        setup: Of the bench.
        run: The run.
        recover: Of `recovery.make_recover`.
        output: Folder; made if need be.
        batch_size: Objects at a time. All batches have one size, so that one program does.
        limit: limit(n) -> what the median misfit of n objects may be (`recovery.misfit_limit`).
        settings: Recorded in results.json.
        notes: Warnings that hold before any frame is read.
        stack: Write stacks in place of files for each object.
        pitch: Of the object's pixels, metres, for the pictures; 0 where it is not known.
        truth: The objects themselves [n h w c], in the order of `groups`, to score against.
        rows: Of objects that are done (`results.read_results`).

    Raises:
        InputError: If a frame cannot be used; what was done before it stays.
    """
    found = list(rows)
    done = {row["name"] for row in found}
    place = {group[0].name: number for number, group in enumerate(groups)}
    left = [group for group in groups if group[0].name not in done]
    output.mkdir(parents=True, exist_ok=True)
    provenance = run_folder.provenance()

    def save() -> dict[str, Any]:
        summary = summarise(found, limit, settings=settings, notes=notes)
        results.write_results(output, summary | {"provenance": provenance})
        return summary

    def each_batch(write: Callable[[results.Recovery], None]) -> None:
        batch: list[Measured] = []
        saved = time.monotonic()
        with progress(total=len(left), desc="objects", unit="object") as bar:
            for number, one in enumerate(measure_frames(left, setup, run), start=1):
                batch.append(one)
                if len(batch) == batch_size or number == len(left):
                    done_now = _write_batch(batch, recover, run, batch_size, limit(1), write)
                    if truth is not None:
                        _score(done_now, run, truth, place)
                    found.extend(row for row, _ in done_now)
                    bar.update(len(batch))
                    batch = []
                    signals.check("interrupted, what is done is saved; go on with --resume")
                    # All rows are written anew: after every batch, that adds up.
                    if not stack and time.monotonic() - saved > SAVE_SECONDS:
                        save()
                        saved = time.monotonic()

    if stack:
        with signals.noting(), results.open_stack(output, len(left)) as append:
            each_batch(append)
    else:
        shown = {"scene": run.camera.scene, "pitch": pitch}
        try:
            with signals.noting():
                each_batch(lambda one: results.write_recovery(output, one, **shown))
        except BaseException:  # also a signal
            if found:
                save()
            raise
    # The order of the stack; objects whose frames are gone by now come last.
    found.sort(key=lambda row: place.get(row["name"], len(groups)))
    return save()


def summarise(
    rows: list[Row],
    limit: Callable[[int], float],
    *,
    settings: dict[str, Any],
    notes: tuple[str, ...],
) -> dict[str, Any]:
    """Returns what results.json holds beside provenance; arguments as of `reconstruct`."""
    median, median_limit = float(np.median([row["misfit"] for row in rows])), limit(len(rows))
    return {
        "settings": settings,
        "warnings": [*notes, *stack_warnings(rows, median, median_limit)],
        "misfit_limit": limit(1),
        "median_misfit": median,
        "median_misfit_limit": median_limit,
        "frames": rows,
    }


def _write_batch(
    batch: list[Measured],
    recover: Recover,
    run: Run,
    batch_size: int,
    limit: float,
    write: Callable[[results.Recovery], None],
) -> list[tuple[Row, Image]]:
    # What fills up the last batch is recovered and dropped.
    filled = [batch[i % len(batch)].intensity for i in range(batch_size)]
    found = recover(jnp.asarray(np.stack(filled)))
    rows = []
    for i, one in enumerate(batch):
        parts = scene_parts(np.asarray(found.image[i]), run.camera.scene)
        write(results.Recovery(one.name, parts, np.asarray(found.estimate[i]), one.intensity))
        row = {
            "name": one.name,
            "files": one.files,
            "misfit": float(found.misfit[i]),
            "correlation": float(found.correlation[i]),
            "refined_misfit": float(found.refined_misfit[i]),
            "counts": one.counts,
            "energy": one.energy,
            "saturation": one.saturation,
            "unused_bits": one.unused_bits,
        }
        warning = frame_warnings(row, limit, modulus_one=run.camera.scene.kind == "phase")
        rows.append(({**row, "warning": warning}, found.image[i]))
    return rows


def _score(
    recovered: list[tuple[Row, Image]], run: Run, truth: Images, place: dict[str, int]
) -> None:
    """Adds to each row how far its object is from the true one."""
    images = jnp.stack([image for _, image in recovered])
    true = jnp.stack([truth[place[row["name"]]] for row, _ in recovered])
    scores = run.camera.score(images, true)
    for number, (row, _) in enumerate(recovered):
        row |= {name: float(getattr(scores, name)[number]) for name in results.SCORES}
