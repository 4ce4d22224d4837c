"""Compares masks on the same scenes: gathers designs, scenes and prior, and analyses them."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_kdpr.config import schema
from jax_kdpr.config.schema import Config
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import Range, need
from jax_kdpr.core.progress import progress
from jax_kdpr.core.types import Images, Phases
from jax_kdpr.data.batches import take_batch
from jax_kdpr.evaluation.uniqueness import masks as mask_analysis
from jax_kdpr.evaluation.uniqueness.prior import Prior, fit_prior
from jax_kdpr.optics.camera import Camera
from jax_kdpr.optics.masks import init_phases
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.assembly import build_camera
from jax_kdpr.runs.run import load_data, restore, run_keys

PRIOR_IMAGES, PRIOR_NUMBERS = 4000, 2**27  # the most training images, and pixels, of the prior
OWN_IMAGES = 256  # the most test images that give `Subject.unit`
PHOTON_RANGE = Range(0, 1e18, "(]")  # in a shot


class Subject(NamedTuple):
    """The designs to compare, and the scenes that they are compared on."""

    designs: dict[str, tuple[Camera, Phases]]
    images: Images
    prior: Prior
    unit: float  # median distance of true test scenes to the prior's subspace, in image units
    digest: str  # of the data


def read_photons(values: list[str]) -> tuple[float, ...]:
    """Returns the numbers of photons that --photons lists.

    Raises:
        InputError: If there is none, or one is not a number in `PHOTON_RANGE`.
    """
    try:
        photons = tuple(float(value) for value in values)
    except ValueError:
        photons = ()
    if not photons or not all(PHOTON_RANGE.holds(value) for value in photons):
        raise InputError(
            f"--photons: expected numbers in {PHOTON_RANGE} with commas between them, such as "
            f"1e3,1e4; got {','.join(values)!r}"
        )
    return photons


def make_subject(
    config: Config,
    runs: Mapping[str, Path],
    phases: Mapping[str, Phases],
    *,
    random: bool,
    scenes: int,
    data_dir: str = "",
) -> Subject:
    """Gathers the designs to compare and at most `scenes` test scenes.

    The masks of `runs` keep their own optics, and the first run gives the data. Further `phases`
    get the optics of `config`. With `random`, masks of independent phases in the same optics are
    added, as many as the first design has.

    Raises:
        InputError: If a run or the data cannot be read, or a mask is at a distance from the object.
    """
    camera = build_camera(config)
    designs: dict[str, tuple[Camera, Phases]] = {}
    for name, workdir in runs.items():
        run = restore(workdir, run_folder.read_config(workdir))
        designs[name] = run.camera, run.phases
    designs |= {name: (camera, given) for name, given in phases.items()}
    if random:
        first = next(iter(designs.values()), None)
        snapshots = len(first[1]) if first else config.masks.snapshots
        key, side = run_keys(config.seed).init, camera.size
        drawn = init_phases(key, snapshots=snapshots, height=side, width=side)
        designs["random phases"] = camera, drawn
    for name, (seen_by, _) in designs.items():
        need(
            not seen_by.propagation.gap,
            f"{name}: its mask is at a distance from the object (propagation.gap), where the false "
            "objects that are compared here are other ones; leave it out, or the gap",
        )
    dataset = (
        load_data(next(iter(runs.values())), config, data_dir=data_dir)
        if runs
        else schema.load_data(config)
    )

    def take(images, count: int) -> Images:
        indices = jnp.arange(min(count, len(images)))
        return take_batch(images, indices, size=camera.size, channels=camera.channels)

    fitting = max(2, PRIOR_NUMBERS // camera.size**2)
    prior = fit_prior(np.asarray(take(dataset.train(0), min(PRIOR_IMAGES, fitting)))[..., 0])
    return Subject(
        designs=designs,
        images=take(dataset.test, scenes),
        prior=prior,
        unit=mask_analysis.own_distance(prior, take(dataset.test, OWN_IMAGES)),
        digest=dataset.digest,
    )


def analyse(
    name: str, subject: Subject, *, photons: tuple[float, ...], read_noise: float, steps: int
) -> Iterator[dict[str, Any]]:
    """Yields the results of one design, each time with one part more.

    The noise and bench errors of the design are left out. All numbers have double precision. The
    arguments are those of `masks.bounds`.
    """
    camera, phases = subject.designs[name]
    prior, images = subject.prior, subject.images
    with jax.enable_x64(True), progress(total=2 + len(photons), desc=name, unit="part") as bar:
        design, images = _design(camera, phases), _double(images)
        found: dict[str, Any] = {
            "snapshots": int(design.optics.masks.shape[0]),
            "oversample": design.oversample,
            "false_objects": mask_analysis.false_objects(
                design, images, prior=prior, unit=subject.unit
            ),
            "bounds": [],
        }
        bar.update()
        yield found
        found["jacobian"] = mask_analysis.conditioning(design, images, steps=steps)
        bar.update()
        yield found
        asked = {"photons": photons, "read_noise": read_noise, "steps": steps}
        for bound in mask_analysis.bounds(design, images, prior=prior, **asked):
            found["bounds"].append(bound)
            bar.update()
            yield found


def bounds(name: str, subject: Subject, *, photons: float) -> dict[str, Any]:
    """Returns the bounds of one design alone (`masks.bounds`), without read noise."""
    camera, phases = subject.designs[name]
    with jax.enable_x64(True):
        design, images = _design(camera, phases), _double(subject.images)
        asked = {"photons": (photons,), "read_noise": 0.0}
        return next(mask_analysis.bounds(design, images, prior=subject.prior, **asked))


def _design(camera: Camera, phases: Phases) -> mask_analysis.Design:
    return mask_analysis.make_design(
        jax.tree.map(_double, camera.optics(_double(phases))),
        oversample=camera.oversample,
        scene=camera.scene,
    )


def as_json(value: Any) -> Any:
    """Returns results with None for numbers that are not finite, which JSON cannot hold."""
    if isinstance(value, dict):
        return {name: as_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _double(values: Any) -> Any:
    if not isinstance(values, jax.Array):
        return values
    return values.astype(jnp.complex128 if jnp.iscomplexobj(values) else jnp.float64)
