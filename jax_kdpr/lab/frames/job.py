"""A whole reconstruction: the limit of the run, the orientation of the frames, files and sheet."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jax_kdpr.core.types import Images
from jax_kdpr.lab.frames.geometry import Geometry
from jax_kdpr.lab.frames.measured import Setup, measure_frames, noise_sigma
from jax_kdpr.lab.frames.orientation import orientation_warning
from jax_kdpr.lab.frames.reading import Frame
from jax_kdpr.lab.frames.reconstruction import Row, reconstruct
from jax_kdpr.lab.frames.recovery import make_limit, make_recover
from jax_kdpr.lab.frames.sheet import write_sheet
from jax_kdpr.recovery.refinement import Refinement
from jax_kdpr.runs.run import Run


def reconstruct_bench(
    groups: list[tuple[Frame, ...]],
    setup: Setup,
    run: Run,
    output: Path,
    *,
    refinement: Refinement,
    limit: float | None,
    spread: float | None,
    shape: tuple[int, int],
    make_setup: Callable[[Geometry], Setup],
    batch_size: int,
    notes: list[str],
    pitch: float,
    stack: bool,
    settings: dict[str, Any],
    truth: Images | None,
    rows: list[Row],
) -> tuple[dict[str, Any], bool]:
    """Recovers and writes all objects of a bench; arguments as of `reconstruct`, and:

    Args:
        groups: The frames of each object.
        setup: Of the bench.
        run: The run.
        output: Folder, which is there.
        refinement: Of the network's images.
        limit: Largest misfit to trust; None for that of the run.
        spread: Standard deviation of a dark pixel, counts; None if unknown.
        shape: Of a raw frame.
        make_setup: As of `orientation_warning`.
        batch_size: Objects at a time.
        notes: Warnings that hold before any frame is read.
        pitch: Of the object's pixels.
        stack: Write stacks.
        settings: Recorded in results.json.
        truth: The objects themselves.
        rows: Of objects that are done.

    Returns:
        What results.json holds, and whether it is to be trusted as a whole: not where the frames
        fit far better in another orientation, nor where the median misfit is above its limit.

    Raises:
        InputError: If a frame cannot be used.
    """
    recover = make_recover(run, refinement=refinement)
    first = next(measure_frames(groups[:1], setup, run))
    sigma = noise_sigma(spread, setup, run, first.counts)
    allowed = make_limit(run, recover, limit, noise_sigma=sigma, batch_size=batch_size)
    shared = {"batch_size": batch_size, "limit": allowed}
    turned = orientation_warning(
        groups, setup, run, recover, **shared, shape=shape, make_setup=make_setup
    )
    found = reconstruct(
        *(groups, setup, run, recover, output),
        **shared,
        settings=settings,
        notes=tuple(filter(None, (*notes, turned))),
        stack=stack,
        pitch=pitch,
        truth=truth,
        rows=tuple(rows),
    )
    write_sheet(output, found["frames"], scene=run.camera.scene, pitch=pitch, stack=stack)
    return found, not turned and found["median_misfit"] <= found["median_misfit_limit"]
