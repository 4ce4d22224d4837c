"""A folder of frames from a simulated bench, and the truth beside them."""

import itertools
from pathlib import Path

import numpy as np

from jax_kdpr.core import json_files, whole_files
from jax_kdpr.core.limits import require_pixels
from jax_kdpr.core.options import shallow
from jax_kdpr.core.progress import progress
from jax_kdpr.core.types import Image, Images
from jax_kdpr.lab.frames.geometry import Window, default_geometry
from jax_kdpr.lab.frames.loaded import (
    TRUTH_FILE,
    TRUTH_RECORD,
    blank_image,
    pixel_side,
    snapshot_energy,
)
from jax_kdpr.lab.frames.simulated_camera import (
    Bench,
    camera_light,
    expose,
    find_exposure,
    make_sensor,
    write_references,
    write_tiff,
)
from jax_kdpr.optics import cdp
from jax_kdpr.optics.objects import scene_field
from jax_kdpr.runs.run import Run


def make_bench(
    run: Run,
    *,
    scale: float,
    rotation: float = 0.0,
    shift: tuple[float, float] = (0.0, 0.0),
    flip: str = "none",
    transpose: bool = False,
    shape: tuple[int, int] | None = None,
) -> Bench:
    """Returns a camera with the pattern moved on it; it is a third larger without a `shape`."""
    if shape is None:
        shape = (round(run.sensor[0] * scale * 4 / 3), round(run.sensor[1] * scale * 4 / 3))
    require_pixels("--scale", *shape)
    window = Window(0, 0, *shape)
    centred = default_geometry(
        window, run.sensor, scale, rotation=rotation, flip=flip, transpose=transpose
    )
    moved = centred._replace(
        centre_y=centred.centre_y + shift[0], centre_x=centred.centre_x + shift[1]
    )
    return Bench(moved, shape, pixel_side(run))


def write_bench(output: Path, run: Run, images: Images, bench: Bench, *, seed: int) -> None:
    """Writes the folder of `simulate_bench`: see its help.

    Args:
        output: The folder.
        run: The run whose optics the scenes are seen through.
        images: Scenes [n h w c].
        bench: The camera.
        seed: Of sensor and noise.
    """
    rng = np.random.default_rng(seed)
    sensor = make_sensor(bench, rng)
    for folder in ("frames", "calibration"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    # Twice through all of the objects: memory holds one.
    blank = _lights(run, blank_image(run), bench)
    objects = (
        _lights(run, image, bench) for image in progress(images, desc="exposure", unit="object")
    )
    energy = float(np.mean(snapshot_energy(run)))
    exposure = find_exposure(itertools.chain([blank], objects), bench, sensor, energy=energy)
    for number, image in enumerate(progress(images, desc="frames", unit="object")):
        for k, one in enumerate(_lights(run, image, bench)):
            path = output / "frames" / f"object_{number:05d}_{k:02d}.tif"
            write_tiff(path, expose(one, exposure, bench, sensor, rng))
    for k, one in enumerate(blank):
        path = output / "calibration" / f"blank_{k:02d}.tif"
        write_tiff(path, expose(one, exposure, bench, sensor, rng))
    write_references(output, exposure, bench, sensor, rng)
    whole_files.write_whole(output / TRUTH_FILE, lambda file: np.save(file, np.asarray(images)))
    known = {"counts_per_unit": exposure.gain, "counts_per_electron": exposure.electron}
    scene = {"scene": shallow(run.camera.scene)}
    truth = {**bench._asdict(), "geometry": bench.geometry._asdict(), **known, **scene}
    json_files.write_json(output / TRUTH_RECORD, truth)


def _lights(run: Run, image: Image, bench: Bench) -> np.ndarray:
    """Light of each snapshot of one scene [k h w]."""
    spectra = cdp.cdp_forward(
        scene_field(image, run.camera.scene),
        run.optics.masks,
        oversample=run.camera.oversample,
        transfer=run.optics.transfer,
    )
    return np.stack([camera_light(one, bench, axis=run.camera.axis) for one in np.asarray(spectra)])
