"""Recovers all frames of a bench, batch by batch, to files and to the rows of results.json."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jax_kdpr.core import signals
from jax_kdpr.core.progress import progress
from jax_kdpr.core.provenance import provenance
from jax_kdpr.core.types import Images
from jax_kdpr.lab.frames import results
from jax_kdpr.lab.frames.measured import Measured, Setup, measure_frames, noise_sigma
from jax_kdpr.lab.frames.orientation import orientation_warning
from jax_kdpr.lab.frames.reading import Frame
from jax_kdpr.lab.frames.recovery import (
    Recover,
    make_recover,
    misfit_limit,
    simulated_misfits,
)
from jax_kdpr.lab.frames.results import Row
from jax_kdpr.optics.camera import Camera
from jax_kdpr.optics.objects import SceneOptions, scene_parts
from jax_kdpr.recovery.refinement import Refinement
from jax_kdpr.runs.run import Run

SAVE_SECONDS = 5.0  # between writings of results.json
SATURATED = 5e-3  # share of pixels
ENERGY = 0.2  # relative difference from what a scene lets through

Limit = Callable[[int], float]  # limit(n): largest median misfit of n objects that is trusted
Write = Callable[[results.Recovery], None]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be made of the frames, and where."""

    output: Path  # folder; made if need be
    batch_size: int  # objects at a time; all batches have one size, for one compiled program
    stack: bool = False  # stacks in place of files for each object
    pitch: float = 0.0  # of the object's pixels, metres, for the pictures; 0 where not known
    truth: Images | None = None  # the objects themselves [n h w c], in the order of the frames
    rows: tuple[Row, ...] = ()  # of objects that are done (`results.read_results`)
    settings: dict[str, Any] = field(default_factory=dict)  # recorded in results.json
    notes: tuple[str, ...] = ()  # warnings that hold before any frame is read
    placed: bool = True  # whether the place of the pattern is to be trusted (its calibration)


def reconstruct_bench(
    groups: list[tuple[Frame, ...]],
    setup: Setup,
    run: Run,
    wanted: Wanted,
    *,
    refinement: Refinement,
    limit: float | None,
) -> tuple[dict[str, Any], bool]:
    """Recovers and writes all objects of a bench, with what tells how far to trust them.

    `limit` is the largest misfit that is trusted; None takes that of the run. For a solver without
    a network it must be given.

    Returns:
        What results.json holds, and whether to trust it as a whole. It is not trusted if the place
        of the pattern is not, if the frames fit far better in another orientation, or if the median
        misfit is above its limit.

    Raises:
        InputError: If a frame cannot be used.
    """
    recover = make_recover(run, refinement=refinement)
    batch_size = wanted.batch_size
    allowed = (
        _limit_of(run, recover, groups, setup, batch_size) if limit is None else lambda _: limit
    )
    turned = orientation_warning(groups, setup, run, recover, batch_size=batch_size, limit=allowed)
    found = reconstruct(groups, setup, run, recover, wanted, limit=allowed, turned=turned)
    explained = found["median_misfit"] <= found["median_misfit_limit"]
    return found, wanted.placed and not turned and explained


def reconstruct(
    groups: list[tuple[Frame, ...]],
    setup: Setup,
    run: Run,
    recover: Recover,
    wanted: Wanted,
    *,
    limit: Limit,
    turned: str = "",
) -> dict[str, Any]:
    """Recovers and writes every object that is not done yet; returns what results.json holds.

    The rows are in the order of `groups`, as the objects of a stack are.

    Memory holds one batch. results.json is written every few seconds, and when the call is
    interrupted, so that another call can resume. This does not hold for a stack, whose files do
    not exist before the end.

    Raises:
        InputError: If a frame cannot be used; what was done before it stays.
    """
    found, scene = list(wanted.rows), run.camera.scene
    done = {row["name"] for row in found}
    place = {group[0].name: number for number, group in enumerate(groups)}
    left = [group for group in groups if group[0].name not in done]
    wanted.output.mkdir(parents=True, exist_ok=True)
    made = provenance()

    def save() -> dict[str, Any]:
        summary = _summarise(found, limit, [*wanted.notes, *filter(None, [turned])])
        summary = {"settings": wanted.settings, **summary}
        results.write_results(wanted.output, summary | {"provenance": made})
        return summary

    saved, measured = time.monotonic(), measure_frames(left, setup, run)
    with (
        _writer(wanted, scene, len(left), lambda: found and save()) as write,
        progress(total=len(left), desc="objects", unit="object") as bar,
    ):
        while batch := list(itertools.islice(measured, wanted.batch_size)):
            rows, images = _write_batch(
                batch, recover, run.camera, wanted.batch_size, limit(1), write
            )
            if wanted.truth is not None:
                true = jnp.stack([wanted.truth[place[row["name"]]] for row in rows])
                scores = run.camera.score(images, true)
                for number, row in enumerate(rows):
                    row |= {name: float(getattr(scores, name)[number]) for name in results.SCORES}
            found.extend(rows)
            bar.update(len(batch))
            signals.check("interrupted, what is done is saved; go on with --resume")
            # All rows are written anew each time, so doing it after every batch would be slow.
            if not wanted.stack and time.monotonic() - saved > SAVE_SECONDS:
                save()
                saved = time.monotonic()
    # The order is that of the stack; objects whose frames no longer exist come last.
    found.sort(key=lambda row: place.get(row["name"], len(groups)))
    results.write_sheet(
        wanted.output,
        found,
        scene=scene,
        pitch=wanted.pitch,
        stack=wanted.stack,
        placed=wanted.placed and not turned,
    )
    return save()


@contextmanager
def _writer(
    wanted: Wanted, scene: SceneOptions, count: int, save: Callable[[], Any]
) -> Iterator[Write]:
    """Yields write(recovery) for `count` objects; saves the rows if the block is left early."""
    if wanted.stack:  # its files do not exist before the end
        with signals.noting(), results.open_stack(wanted.output, count) as append:
            yield append
        return
    try:
        with signals.noting():
            yield partial(results.write_recovery, wanted.output, scene=scene, pitch=wanted.pitch)
    except BaseException:  # signals too
        save()
        raise


def _limit_of(
    run: Run, recover: Recover, groups: list[tuple[Frame, ...]], setup: Setup, batch_size: int
) -> Limit:
    """Returns the limit of the run's misfit, with the read noise of the bench."""
    first = next(measure_frames(groups[:1], setup, run))
    sigma = noise_sigma(setup, run, first.counts)
    simulated = simulated_misfits(run, recover, noise_sigma=sigma, batch_size=batch_size)
    return partial(misfit_limit, simulated)


def _summarise(rows: list[Row], limit: Limit, notes: list[str]) -> dict[str, Any]:
    """Returns what results.json says of all objects together."""
    median, median_limit = float(np.median([row["misfit"] for row in rows])), limit(len(rows))
    if median > median_limit:
        notes.append(
            f"median misfit {median:.3f} above {median_limit:.3f}: check orientation, centre, "
            "scale, dark and the mask that was shown, or the objects are unlike those of the "
            "training"
        )
    bits = min(row["unused_bits"] for row in rows)
    if bits:
        notes.append(
            f"all counts are multiples of {2**bits}: {16 - bits}-bit data left-justified in 16 "
            "bits? dark, flat, --gain and calibration must be of the same kind"
        )
    return {
        "warnings": notes,
        "misfit_limit": limit(1),
        "median_misfit": median,
        "median_misfit_limit": median_limit,
        "frames": rows,
    }


def _write_batch(
    batch: list[Measured],
    recover: Recover,
    camera: Camera,
    batch_size: int,
    limit: float,
    write: Write,
) -> tuple[list[Row], Images]:
    # Repeated objects fill up the last batch; their results are dropped.
    filled = [batch[i % len(batch)].intensity for i in range(batch_size)]
    found, rows = recover(jnp.asarray(np.stack(filled))), []
    for i, one in enumerate(batch):
        parts = scene_parts(np.asarray(found.image[i]), camera.scene)
        write(results.Recovery(one.name, parts, np.asarray(found.estimate[i]), one.intensity))
        row = one._asdict() | {
            "misfit": float(found.misfit[i]),
            "refined_misfit": float(found.refined_misfit[i]),
        }
        del row["intensity"]
        row["warning"] = frame_warning(row, limit, camera)
        rows.append(row)
    return rows, found.image[: len(batch)]


def frame_warning(row: Row, limit: float, camera: Camera) -> str:
    """Returns what is wrong with an object's row of results.json, in one line; "" if nothing is."""
    said = []
    scene = camera.scene
    least = {"phase": 1.0, "complex": scene.min_amplitude**2}.get(scene.kind, 0.0)
    is_told = scene.kind == "phase" or camera.keeps_light  # else some may come from elsewhere
    if row["misfit"] > limit:
        said.append(
            f"misfit {row['misfit']:.3f} above {limit:.3f}: the object does not explain its pattern"
        )
    if row["saturation"] > SATURATED:
        said.append(f"{row['saturation']:.1%} of the pixels are saturated")
    if is_told and not (1 - ENERGY) * least <= row["energy"] <= 1 + ENERGY:
        possible = "1" if least == 1.0 else f"{least:.2g} to 1"
        said.append(
            f"the frame holds {row['energy']:.3g} times the light without an object, expected "
            f"{possible}: wrong --gain, exposure, dark or bit depth"
        )
    return "; ".join(said)
