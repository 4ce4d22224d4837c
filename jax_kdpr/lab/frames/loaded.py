"""A trained run as measured data need it: its system, its optics, its grid and its energy."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jax_kdpr.core import json_files
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.json_files import Maybe
from jax_kdpr.core.limits import shown
from jax_kdpr.core.options import shallow
from jax_kdpr.core.types import Image, Images
from jax_kdpr.data import sources
from jax_kdpr.data.image_files import Preparation, read_images
from jax_kdpr.data.pages.stacks import read_array, split_dataset
from jax_kdpr.optics import cdp
from jax_kdpr.optics.objects import scene_field
from jax_kdpr.optics.propagation import SHARED_ENVELOPE, shares_envelope
from jax_kdpr.runs.run import Run

PARTS = {"phase": "phase", "amplitude": r"amplitude|(?<![a-z])amp(?![a-z])"}  # words in names
TRUTH_FILE = "truth.npy"  # of a simulated bench: its scenes
TRUTH_RECORD = "truth.json"  # and all else


def pixel_side(run: Run) -> float:
    """Side of a square mask pixel in mask pitches (`geometry.pixel_envelope`); 0 where near.

    Raises:
        InputError: If the pixels have no envelope in common.
    """
    if run.optics.transfer is not None:
        return 0.0
    space = run.config.propagation
    if space.kind == "fresnel" and not shares_envelope(run.camera.size, space):
        raise InputError(
            f"--workdir: at a distance of {space.distance:g} m, below {SHARED_ENVELOPE} "
            "N p^2 / lambda, each square mask pixel has an envelope of its own, which frames "
            "are not corrected for; take a longer distance or a lens, or, where the mask's "
            "real pixels are finer than the model's, --mask_pixels point"
        )
    return float(np.sqrt(run.config.device.fill_factor))


def blank_image(run: Run) -> Image:
    """Returns the scene without an object: phase 0, amplitude 1."""
    size = run.camera.size
    values = {"phase": [0.0], "amplitude": [1.0], "complex": [0.0, 1.0]}[run.camera.scene.kind]
    return jnp.broadcast_to(jnp.asarray(values, jnp.float32), (size, size, len(values)))


def own_images(
    run: Run,
    source: Path,
    *,
    flag: str,
    as_trained: bool = False,
) -> Images:
    """Reads image files as scenes of a run, prepared as its data are (`data.image_files`).

    But they are never stretched: an object is what it is. A complex scene is two images that follow
    each other, its phase and its amplitude; a line says which are the first two. The truth.npy of a
    simulated bench, beside its truth.json, is scenes already.

    Args:
        run: The run.
        source: Folder, one file of many pages, or of one image.
        flag: That names it.
        as_trained: Whether phases in radians get the offset that those of the run's data got, which
            are read for it. Else the smallest is 0, which will do where the global phase does not
            count.

    Raises:
        InputError: If they cannot be read, or are no scenes of this run.
    """
    if source.name == TRUTH_FILE and (source.parent / TRUTH_RECORD).exists():
        return _written_scenes(run, source, flag)
    sources.require_there(str(source), named=flag)
    offset = None
    if run.in_radians and as_trained:
        offset = run.dataset.offset
    data, scene = run.config.data, run.config.scene
    wanted = Preparation(
        data.size, data.fit, data.unit, phase_range=scene.image_range, offset=offset
    )
    try:
        raw, _, names = read_images(
            source, wanted, subfolders=data.subfolders, of_frames=True, label=flag
        )
    except InputError as failure:
        raise InputError(f"{flag}: {str(failure).removeprefix('data.dir: ')}") from failure
    channels = run.camera.channels
    if len(raw) % channels:
        raise InputError(
            f"{flag}: expected two images of each complex scene, its phase and its amplitude, got "
            f"{len(raw)} in all; add the one that is missing"
        )
    if channels == 2:
        _check_turns(flag, [name.removeprefix(split_dataset(str(source))[0]) for name in names])
    scenes = raw.reshape(-1, channels, *raw.shape[1:])
    return jnp.asarray(np.moveaxis(scenes, 1, -1))


def own_truth(run: Run, source: Path, count: int) -> Images:
    """Reads --truth, one object for each of `count`; raises as `own_images`."""
    images = own_images(run, source, flag="--truth", as_trained=True)
    if len(images) != count:
        raise InputError(
            f"--truth: expected {count} images, one for each object in the order of the frames, "
            f"got {len(images)}"
        )
    return images


def own_object(run: Run, source: Path) -> Image:
    """Reads --object, the one in the beam; raises as `own_images`."""
    images = own_images(run, source, flag="--object")
    if len(images) != 1:
        raise InputError(
            f"--object: expected one object, got {len(images)}; give the one in the beam"
        )
    return images[0]


def _check_turns(flag: str, names: list[str]) -> None:
    """Says which files are phase and amplitude; refuses names that say otherwise."""
    for number, name in enumerate(names):
        said = [part for part, word in PARTS.items() if re.search(word, name.lower())]
        part = tuple(PARTS)[number % 2]
        if said and part not in said:
            raise InputError(
                f"{flag}: {name.lstrip('/')} would be the {part} of a complex scene; name the "
                "files so that each phase comes right before its amplitude, such as 1_1_phase and "
                "1_2_amplitude"
            )
    more = ", and so on" if len(names) > 2 else ""
    print(f"{flag}: phase {names[0].lstrip('/')}, amplitude {names[1].lstrip('/')}{more}")


def _written_scenes(run: Run, path: Path, flag: str) -> Images:
    """What `bench_folder.write_bench` wrote, to the bit."""
    record = json_files.read_json(
        path.with_name(TRUTH_RECORD), {"scene": Maybe(dict)}, remedy="make both anew"
    )
    for name, value in shallow(run.camera.scene).items():
        found = record.get("scene", {}).get(name, value)  # earlier versions left it open
        if found != value:
            raise InputError(
                f"{flag}: {path}: its scenes have scene.{name} {shown(found)}, those of the run "
                f"{value}; they are of another run"
            )
    try:
        scenes = read_array(path)
        top = float(np.abs(scenes - 0.5).max(initial=0.0))
    except Exception as failure:  # numpy raises many kinds
        raise InputError(f"{flag}: {path}: cannot be read ({failure}); make it anew") from failure
    shape = (run.camera.size, run.camera.size, run.camera.channels)
    if scenes.dtype != np.float32 or scenes.shape[1:] != shape or not top <= 0.5:
        raise InputError(
            f"{flag}: {path}: expected scenes float32 [n {shape[0]} {shape[1]} {shape[2]}] in "
            f"[0, 1], got {scenes.dtype} {list(scenes.shape)}; they are of another run"
        )
    return jnp.asarray(scenes)


def simulate(run: Run, image: Image) -> Float[np.ndarray, "k sh sw"]:
    """Returns the noiseless CDPs of a scene through the run's optics."""
    field = scene_field(image, run.camera.scene)
    oversample = run.camera.oversample
    return np.asarray(
        jax.jit(cdp.measure_intensity, static_argnames="oversample")(
            field, run.optics.masks, oversample=oversample, transfer=run.optics.transfer
        ),
        np.float64,
    )


def snapshot_energy(run: Run) -> Float[np.ndarray, "k"]:
    """Returns the sum of each CDP of a scene of modulus 1: h * w with ideal masks."""
    return simulate(run, blank_image(run)).sum(axis=(1, 2))
