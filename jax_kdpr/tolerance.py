"""Finds how well a bench must be built: `python -m jax_kdpr.tolerance --workdir RUN [RUN ...]`.

Measures the run's test images on benches that differ from the design (mask shift, rotation and
scale, defocus, wavelength, gain of the device's phases, photons). The mask, the network and the
optics that the recovery assumes stay as they are. There are two results, in tolerance.md,
tolerance.json and tolerance.png:

* curves: mean PSNR against the size of each error, one at a time;
* yield: of --benches benches with all errors at random (standard deviations --spread, by default
  those of a careful bench), the share that loses no more than --loss dB, or reaches --target dB.

Several runs are measured on the same benches: for example, one that was trained with these errors
(--config.jitter.shift=0.3 and so on) beside one that was not.

    python -m jax_kdpr.tolerance --workdir runs/e2e runs/robust --spread shift=0.3,rotation=0.5

--config in place of --workdir measures optics without a network, such as those of a mask file. A
solver then recovers, as in `reconstruct`, which is slow: for a first look, take fewer --images,
--benches, --starts and steps of --refine.
"""

from absl import flags

from jax_kdpr.config.schema import Config
from jax_kdpr.core import options
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.provenance import provenance
from jax_kdpr.evaluation import tolerance_report
from jax_kdpr.evaluation.tolerance import Request, check_request, measure_run, require_beam
from jax_kdpr.interface import cli, option_flags, solver_flags, system_flags
from jax_kdpr.interface.reports import Report
from jax_kdpr.runs.run import Run, load_run

flags.adopt_module_key_flags(system_flags)
flags.adopt_module_key_flags(solver_flags)
CONFIG = cli.define_config()
OUTPUT = flags.DEFINE_string("output", None, "Folder of the report; default: the first run's.")
for _define in option_flags.declarations(Request()):
    _define()
DATA_DIR = flags.DEFINE_string("data_dir", "", "Where the data lie now, if they have moved.")


def main(positional: list[str]) -> int:
    """Measures every run folder given."""
    config = system_flags.read_system_config(CONFIG)
    request = option_flags.read(Request())
    options.check(request, before="--")
    check_request(request)
    if flags.FLAGS["loss"].present and request.target is not None:
        raise InputError("--target: takes the place of --loss; leave out one of the two")
    if not request.benches:
        cli.refuse_given(("spread", "loss", "target"), "is read only with --benches above 0")
    report = Report(system_flags.output_folder(OUTPUT.value, ""), "tolerance")
    report.require_own({"spreads": dict, "runs": dict}, command="tolerance")
    runs = _runs(config, positional)
    # Errors in the data show now.
    images = {name: len(run.dataset.test[: request.images]) for name, run in runs.items()}
    for run in runs.values():
        require_beam(run, request)
    report.make_folder()
    results = {}
    for name, run in runs.items():
        print(f"{name}:", flush=True)
        results[name] = measure_run(run, request)
    record = {
        "images": images,
        "spreads": request.spreads,
        "seed": request.seed,
        "runs": results,
        "provenance": provenance(),
    }
    text = tolerance_report.report(results, images, request)
    report.write(record, text)
    if request.errors:
        tolerance_report.draw(results, request, report.picture)
    print(text)
    drawn = ", .png" if request.errors else ""
    print(f"written: {report.folder}/tolerance.md, tolerance.json{drawn}")
    return 0


def _runs(config: Config, more: list[str]) -> dict[str, Run]:
    """Returns the runs of the folders by name, or the optics of --config."""
    if CONFIG.value is None:
        folders = cli.run_folders(system_flags.WORKDIR.value, more)
        runs = {name: load_run(one, data_dir=DATA_DIR.value) for name, one in folders.items()}
    else:
        cli.require_no_more(more)
        runs = {"optics": system_flags.read_system(config, data_dir=DATA_DIR.value)}
    found = {name: solver_flags.read_recovery(run) for name, run in runs.items()}
    if any(one.refinement.steps for one in found.values()):
        raise InputError("--refine: nothing would read it without --starts or --config")
    for one in found.values():
        solver_flags.require_usable(one)
    return {name: one.run for name, one in found.items()}


if __name__ == "__main__":
    cli.run(main)
