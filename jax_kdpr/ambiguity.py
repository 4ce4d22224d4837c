"""Compares masks without a network: `python -m jax_kdpr.ambiguity --workdir RUN [RUN ...]`.

For each mask set, on the first test scenes of the runs' data:
* the false objects that give the same measurement, or nearly: twin, mirror, shifts; how well they
  fit it, and how far their images are from the training images;
* the singular values of the Jacobian of sqrt(y): what a small change of the object does to it;
* Cramer-Rao bounds on the error against photons, without and with the training images as a prior.

Runs give their trained masks and their optics. --masks FILE.npy[,FILE.npy] gives phases in radians,
[h w] or [L h w], behind the optics of --config FILE (or of the first run); --random adds masks of
independent phases for comparison. Writes ambiguity.md and ambiguity.json, part by part, and at the
end ambiguity.png.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from jax_kdpr.config import schema as config_lib
from jax_kdpr.config.schema import Config
from jax_kdpr.core import json_files, whole_files
from jax_kdpr.core import options as config_fields
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import Range
from jax_kdpr.core.progress import progress
from jax_kdpr.core.types import Images, Phases
from jax_kdpr.data import sources
from jax_kdpr.data.batches import take_batch
from jax_kdpr.data.pages.opening import read_stack
from jax_kdpr.evaluation import plots
from jax_kdpr.evaluation.uniqueness import masks as mask_analysis
from jax_kdpr.evaluation.uniqueness.prior import Prior, fit_prior
from jax_kdpr.evaluation.uniqueness.report import report
from jax_kdpr.interface import cli
from jax_kdpr.optics.camera import Camera, make_camera
from jax_kdpr.optics.masks import init_phases
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.run import load_data, restore, run_keys

PRIOR_IMAGES = 4000  # training images of the prior, at most
DEFAULT_OUTPUT = "runs/ambiguity"
PHOTON_RANGE = Range(0, 1e18, "(]")  # of a shot
LONG = 30  # seconds from which on a time is said in advance
OWN_IMAGES = 256  # test images whose distance to the prior is its unit, at most

CONFIG = cli.define_config()
WORKDIR = flags.DEFINE_string("workdir", None, "Run folder; more may follow it.")
MASKS = flags.DEFINE_list(
    "masks", [], "Files of phases, .npy, [h w] or [L h w], radians, with commas between them."
)
RANDOM = flags.DEFINE_bool("random", False, "Adds random masks, as many as the first set has.")
SCENES = flags.DEFINE_integer("scenes", 4, "Test scenes.", lower_bound=1, upper_bound=10000)
PHOTONS = flags.DEFINE_list("photons", ["1e3", "1e4", "1e5", "1e6"], "Photons a shot.")
READ_NOISE = flags.DEFINE_float(
    "read_noise", 0.0, "Electrons, standard deviation.", lower_bound=0.0, upper_bound=1000000000.0
)
STEPS = flags.DEFINE_integer(
    "steps",
    mask_analysis.STEPS,
    "Of conjugate gradients, beyond 2,048 unknowns: fewer are faster, and leave bounds lower.",
    lower_bound=1,
    upper_bound=1_000_000,
)
DATA_DIR = flags.DEFINE_string("data_dir", "", "Where the data lie now, if not where they were.")
OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Folder for the report; default: of the one run, above several, runs/ambiguity without any.",
)


class Subject(NamedTuple):
    """The designs to compare, and the scenes that they are compared on."""

    designs: dict[str, tuple[Camera, Phases]]
    images: Images
    prior: Prior
    unit: float  # median distance of true test scenes to the prior's subspace, image units
    digest: str  # of the data


def main(positional: list[str]) -> int:
    """Compares the mask sets given."""
    photons = _photons(PHOTONS.value)
    workdirs = cli.run_folders(WORKDIR.value, positional) if WORKDIR.value or positional else {}
    files = cli.named_paths("--masks", MASKS.value)
    output = Path(OUTPUT.value or _default_output(list(workdirs.values())))
    json_files.require_own(
        *("--output", output / "ambiguity.json", {"scenes": int, "designs": dict}),
        command="ambiguity",
        beside=("ambiguity.md", "ambiguity.png"),
    )
    config, configs = _configs(list(workdirs.values()), bool(files))
    phases = {name: _read_masks(file, config) for name, file in files.items()}
    subject = _subject(config, configs, workdirs, phases)
    cli.make_folder("--output", output)
    record = {
        "scenes": len(subject.images),
        "read_noise": READ_NOISE.value,
        "steps": STEPS.value,
        "own_prior_distance": subject.unit,
        "data_digest": subject.digest,
        "provenance": run_folder.provenance(),
    }
    results: dict[str, dict[str, Any]] = {}
    finished = False

    def save() -> str:
        """Writes what there is after each part: an interruption loses one part."""
        text = report(results, scenes=len(subject.images), finished=finished)
        designs = {"finished": finished, "designs": _json_values(results)}
        json_files.write_json(output / "ambiguity.json", record | designs)
        whole_files.write_text(output / "ambiguity.md", text + "\n")
        return text

    for name, design in subject.designs.items():
        parts = analyse(*design, subject, photons=photons, read_noise=READ_NOISE.value, name=name)
        for found in parts:
            results[name] = found
            save()
    finished = True
    print(save())
    plots.plot_ambiguity(results, output / "ambiguity.png")
    print(f"written: {output}/ambiguity.md, .json, .png")
    return 0


def _default_output(workdirs: list[Path]) -> Path:
    """The folder of a single run, the one above several, or one of its own for files alone."""
    if not workdirs:
        return Path(DEFAULT_OUTPUT)
    return workdirs[0] if len(workdirs) == 1 else workdirs[0].parent


def analyse(
    camera: Camera,
    phases: Phases,
    subject: Subject,
    *,
    photons: tuple[float, ...],
    read_noise: float,
    name: str,
) -> Iterator[dict[str, Any]]:
    """Yields what the report says of masks by design, with one part more each time.

    Noise and bench errors are none of it. In double precision (`mask_analysis`).
    """
    prior = subject.prior
    total = len(subject.images) * (2 + len(photons))
    with jax.enable_x64(True), progress(total=total, desc=name, unit="part") as bar:
        design = mask_analysis.make_design(
            jax.tree.map(_double, camera.optics(_double(phases))),
            oversample=camera.oversample,
            scene=camera.scene,
        )
        images = _double(subject.images)
        found: dict[str, Any] = {
            "snapshots": int(design.optics.masks.shape[0]),
            "oversample": design.oversample,
            "false_objects": mask_analysis.false_objects(
                design, images, prior=prior, unit=subject.unit, tick=bar.update
            ),
            "bounds": [],
        }
        yield found
        seconds = mask_analysis.longest_seconds(
            design, images, levels=len(photons), steps=STEPS.value
        )
        if seconds > LONG:
            print(
                f"{name}: {seconds / 60:.0f} minutes at most from here; fewer --scenes, --photons "
                "or --steps take less, and Ctrl-C keeps what is done",
                flush=True,
            )
        found["jacobian"] = mask_analysis.conditioning(
            design, images, steps=STEPS.value, tick=bar.update
        )
        yield found
        for bound in mask_analysis.bounds(
            design,
            images,
            prior=prior,
            photons=photons,
            read_noise=read_noise,
            steps=STEPS.value,
            tick=bar.update,
        ):
            found["bounds"].append(bound)
            yield found


def _photons(values: list[str]) -> tuple[float, ...]:
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


def _configs(workdirs: list[Path], files: bool) -> tuple[Config, list[Config]]:
    """The config that scenes and files' optics come from, and those of the runs."""
    if not workdirs and not files and not RANDOM.value:
        raise InputError(
            "--workdir, --masks: nothing to compare; give run folders, files of phases, or --random"
        )
    records = [run_folder.read_run(workdir) for workdir in workdirs]
    configs = [config_lib.from_dict(record["config"]) for record in records]
    if CONFIG.value is not None or not workdirs:
        if workdirs and not files:
            raise InputError("--config: is read only with --masks; runs bring their own")
        config = cli.read_config(CONFIG, stand_in_teacher="none")
    else:
        config = configs[0]
    for workdir, other, record in zip(workdirs, configs, records, strict=True):
        differing = config_fields.differences(config, other, only=("data.size", "scene."))
        if record["digests"]["data"] != records[0]["digests"]["data"]:
            differing.append("the data or their split")
        if differing:
            raise InputError(
                f"--workdir: one report holds masks for the same data and scenes; {workdir} "
                f"differs: {'; '.join(differing)}; compare them apart"
            )
    if DATA_DIR.value and not workdirs:
        raise InputError("--data_dir: is read only with --workdir; give --config.data.dir")
    return config, configs


def _read_masks(file: Path, config: Config) -> np.ndarray:
    phases = read_stack(file)
    size = config.data.size
    if phases.shape[1:] != (size, size):
        raise InputError(
            f"--masks: {file}: expected phases [L {size} {size}], as data.size says, got "
            f"{list(phases.shape)}; set --config.data.size, or resample the masks"
        )
    if phases.dtype.kind == "b" or not np.all(np.isfinite(phases)):
        raise InputError(
            f"--masks: {file}: expected finite real phases in radians, got {phases.dtype}"
        )
    return phases.astype(np.float32)


def _subject(
    config: Config, configs: list[Config], workdirs: dict[str, Path], phases: dict[str, np.ndarray]
) -> Subject:
    first_run = next(iter(workdirs.values()), None)
    dataset = (
        load_data(first_run, config, data_dir=DATA_DIR.value)
        if first_run
        else sources.load(**config_lib.data_arguments(config))
    )
    camera = make_camera(**config_lib.camera_arguments(config))
    side = camera.size
    designs: dict[str, tuple[Camera, Phases]] = {}
    for (name, workdir), own in zip(workdirs.items(), configs, strict=True):
        run = restore(workdir, own)
        designs[name] = run.camera, run.phases
    for name, given in phases.items():
        designs[name] = camera, jnp.asarray(given)
    if RANDOM.value:
        first = next(iter(designs.values()), None)
        snapshots = len(first[1]) if first else config.masks.snapshots
        designs["random phases"] = (
            camera,
            init_phases(run_keys(config.seed).init, snapshots=snapshots, height=side, width=side),
        )

    def take(images, count: int) -> Images:
        count = min(count, len(images))
        return take_batch(images, jnp.arange(count), size=side, channels=camera.channels)

    prior = fit_prior(np.asarray(take(dataset.train(0), PRIOR_IMAGES))[..., 0])
    return Subject(
        designs=designs,
        images=take(dataset.test, SCENES.value),
        prior=prior,
        unit=mask_analysis.own_distance(prior, take(dataset.test, OWN_IMAGES)),
        digest=dataset.digest,
    )


def _json_values(value: Any) -> Any:
    """The same with null for what is infinite, which JSON cannot hold."""
    if isinstance(value, dict):
        return {name: _json_values(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_values(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _double(values: Any) -> Any:
    if not isinstance(values, jax.Array):
        return values
    return values.astype(jnp.complex128 if jnp.iscomplexobj(values) else jnp.float64)


if __name__ == "__main__":
    cli.run(main)
