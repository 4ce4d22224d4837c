"""Compares masks without a network: `python -m jax_kdpr.ambiguity --workdir RUN [RUN ...]`.

For each mask set, on the first test scenes of the runs' data:
* false objects that give the same measurement, or nearly the same (twin, mirror, shifts): how well
  they fit it, and how far their images are from the training images;
* the singular values of the Jacobian of sqrt(y): how a small change of the object changes it;
* Cramer-Rao bounds on the error against photons, without and with the training images as a prior.

Runs give their trained masks and their optics. --masks FILE[,FILE] adds masks with the optics of
--config FILE (or of the first run). These are files with their sidecars, or phases in radians,
[h w] or [L h w]. --random adds masks of independent phases for comparison. Writes ambiguity.md and
ambiguity.json after each part, and at the end ambiguity.png, the bounds against photons.
"""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
from absl import flags

from jax_kdpr.config.schema import Config
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.provenance import provenance
from jax_kdpr.evaluation import plots
from jax_kdpr.evaluation.uniqueness import comparison
from jax_kdpr.evaluation.uniqueness import masks as mask_analysis
from jax_kdpr.evaluation.uniqueness.report import bound_curves
from jax_kdpr.evaluation.uniqueness.report import report as tables
from jax_kdpr.interface import cli
from jax_kdpr.interface.reports import Report
from jax_kdpr.optics.mask_files.reading import read_phases
from jax_kdpr.runs import folder as run_folder

DEFAULT_OUTPUT = Path("runs/ambiguity")

CONFIG = cli.define_config()
WORKDIR = flags.DEFINE_string("workdir", None, "Run folder; more may follow it.")
MASKS = flags.DEFINE_list(
    "masks", [], "Files as in masks.file, or phases [h w] or [L h w] in radians; comma-separated."
)
RANDOM = flags.DEFINE_bool("random", False, "Adds random masks, as many as the first set has.")
SCENES = flags.DEFINE_integer("scenes", 4, "Test scenes.", lower_bound=1, upper_bound=10000)
PHOTONS = flags.DEFINE_list("photons", ["1e3", "1e4", "1e5", "1e6"], "Photons a shot.")
READ_NOISE = flags.DEFINE_float(
    "read_noise", 0.0, "Read noise, electrons (rms).", lower_bound=0.0, upper_bound=1000000000.0
)
STEPS = flags.DEFINE_integer(
    "steps",
    mask_analysis.STEPS,
    "Conjugate-gradient steps beyond 2,048 unknowns: fewer are faster, bounds come out lower.",
    lower_bound=1,
    upper_bound=1_000_000,
)
DATA_DIR = flags.DEFINE_string("data_dir", "", "Where the data lie now, if they have moved.")
OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Folder for the report; default: the run's, the one above several, or runs/ambiguity.",
)


def main(positional: list[str]) -> int:
    """Compares the mask sets given."""
    asked: dict[str, Any] = {
        "photons": comparison.read_photons(PHOTONS.value),
        "read_noise": READ_NOISE.value,
        "steps": STEPS.value,
    }
    runs = cli.run_folders(WORKDIR.value, positional) if WORKDIR.value or positional else {}
    files = cli.named_paths("--masks", MASKS.value)
    report = Report(Path(OUTPUT.value) if OUTPUT.value else _default_output(runs), "ambiguity")
    report.require_own({"scenes": int, "designs": dict}, command="ambiguity")
    config = _config(list(runs.values()), bool(files))
    given = {
        name: jnp.asarray(read_phases("--masks", str(file), size=config.data.size), jnp.float32)
        for name, file in files.items()
    }
    wanted = {"random": RANDOM.value, "scenes": SCENES.value, "data_dir": DATA_DIR.value}
    subject = comparison.make_subject(config, runs, given, **wanted)
    report.make_folder()
    record = {
        "scenes": len(subject.images),
        **{"read_noise": READ_NOISE.value, "steps": STEPS.value},
        "own_prior_distance": subject.unit,
        "data_digest": subject.digest,
        "provenance": provenance(),
    }
    results: dict[str, dict[str, Any]] = {}

    def save(*, finished: bool) -> str:
        """Writes what there is after each part: an interruption loses one part."""
        text = tables(results, scenes=len(subject.images), finished=finished)
        found = {"finished": finished, "designs": comparison.as_json(results)}
        report.write(record | found, text)
        return text

    for name in subject.designs:
        for found in comparison.analyse(name, subject, **asked):
            results[name] = found
            save(finished=False)
    print(save(finished=True))
    plots.plot_panels(bound_curves(results), report.picture, y_label="PSNR bound (dB)")
    print(f"written: {report.folder}/ambiguity.md, .json, .png")
    return 0


def _default_output(runs: dict[str, Path]) -> Path:
    """Returns the folder of one run, the one above several, or one of its own for files alone."""
    first = next(iter(runs.values()), DEFAULT_OUTPUT)
    return first.parent if len(runs) > 1 else first


def _config(workdirs: list[Path], has_files: bool) -> Config:
    """Returns the config that gives the scenes, and the optics of --masks."""
    if not workdirs and not has_files and not RANDOM.value:
        raise InputError(
            "--workdir, --masks: nothing to compare; give run folders, files of phases, or --random"
        )
    if CONFIG.value is not None and workdirs and not has_files:
        raise InputError("--config: is read only with --masks; runs bring their own")
    if CONFIG.value is not None or not workdirs:
        config = cli.read_optics_config(CONFIG)
    else:
        config = run_folder.read_config(workdirs[0])
    run_folder.require_same_data(workdirs, config if CONFIG.value else None)
    if DATA_DIR.value and not workdirs:
        raise InputError("--data_dir: is read only with --workdir; give --config.data.dir")
    return config


if __name__ == "__main__":
    cli.run(main)
