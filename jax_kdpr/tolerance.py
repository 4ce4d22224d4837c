"""How well a bench must be built: `python -m jax_kdpr.tolerance --workdir RUN [RUN ...]`.

Measures the run's test images on benches that differ from the design (mask shift, rotation and
scale, defocus, wavelength, gain of the device's phases, photons), while mask, network and what the
recovery believes stay as they are. Two results, in tolerance.md, tolerance.json and tolerance.png:

* curves: mean PSNR against the size of each error, one at a time;
* yield: of --benches benches with all errors at random (standard deviations --spread, by default
  those of a careful bench), the share that loses no more than --loss dB, or reaches --target dB.

Several runs are measured on the same benches: one that was trained with these errors switched on
(--config.jitter.shift=0.3 and so on) beside one that was not.

    python -m jax_kdpr.tolerance --workdir runs/e2e runs/robust --spread shift=0.3,rotation=0.5
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from jax_kdpr.config.schema import camera_arguments
from jax_kdpr.core import json_files, whole_files
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.metrics import rms_header
from jax_kdpr.core.tables import markdown_table
from jax_kdpr.evaluation import plots
from jax_kdpr.evaluation import tolerance as bench_errors
from jax_kdpr.evaluation.plots import Line
from jax_kdpr.evaluation.tolerance import GRIDS, UNITS
from jax_kdpr.interface import cli
from jax_kdpr.optics.misalignment import Perturbation
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.run import load_run

WORKDIR = flags.DEFINE_string("workdir", None, "Run folder; more may follow it.")
OUTPUT = flags.DEFINE_string("output", None, "Folder of the report; default: the first run's.")
IMAGES = flags.DEFINE_integer(
    "images", 128, "Test images of each bench.", lower_bound=1, upper_bound=10_000_000
)
BENCHES = flags.DEFINE_integer(
    "benches", 200, "Random benches; 0: curves only.", lower_bound=0, upper_bound=1_000_000
)
ERRORS = flags.DEFINE_list("errors", list(GRIDS), "Errors to draw curves of.")
SPREAD = flags.DEFINE_list(
    "spread", [], "Standard deviations, such as shift=0.3,rotation=0.5; default: a careful bench's."
)
LOSS = flags.DEFINE_float(
    "loss", 1.0, "dB that a good bench may lose.", lower_bound=0.0, upper_bound=1000.0
)
TARGET = flags.DEFINE_float("target", None, "PSNR in dB of a good bench, in place of --loss.")
SEED = flags.DEFINE_integer(
    "seed", 0, "Of the benches and of the noise.", lower_bound=0, upper_bound=2**32 - 1
)
DATA_DIR = flags.DEFINE_string("data_dir", "", "Where the data lie now, if not where they were.")

FEW_IMAGES = 100


def main(positional: list[str]) -> int:
    """Measures every run folder given."""
    workdirs = cli.run_folders(WORKDIR.value, positional)
    unknown = sorted(set(ERRORS.value) - set(GRIDS))
    if unknown:
        raise InputError(f"--errors: expected some of {', '.join(GRIDS)}, got {unknown[0]!r}")
    if not ERRORS.value and not BENCHES.value:
        raise InputError("--errors: none, and no --benches: nothing is left to measure")
    if LOSS.present and TARGET.present:
        raise InputError("--target: takes the place of --loss; leave out one of the two")
    for flag in (SPREAD, LOSS, TARGET):
        if flag.present and not BENCHES.value:
            raise InputError(f"--{flag.name}: is read only with --benches above 0; leave it out")
    spreads = bench_errors.read_spreads(SPREAD.value)
    output = Path(OUTPUT.value) if OUTPUT.value else next(iter(workdirs.values()))
    json_files.require_own(
        *("--output", output / "tolerance.json", {"spreads": dict, "runs": dict}),
        command="tolerance",
        beside=("tolerance.md", "tolerance.png"),
    )
    runs = {name: load_run(folder, data_dir=DATA_DIR.value) for name, folder in workdirs.items()}

    for run in runs.values():
        run.dataset  # noqa: B018  what is wrong with the data is said now
    cli.make_folder("--output", output)
    results = {}
    for name, run in runs.items():
        print(f"{name}:", flush=True)
        test = run.dataset.test[: IMAGES.value]
        measure = bench_errors.make_measure(
            run.on_one_device(),
            test,
            camera=camera_arguments(run.config),
            batch_size=min(run.batch_size, len(test)),
        )
        found = measure_run(measure, spreads)
        results[name] = found | {"rms": rms_header(run.config.scene.kind)}
    record = {
        "images": {name: len(run.dataset.test[: IMAGES.value]) for name, run in runs.items()},
        "spreads": spreads,
        "seed": SEED.value,
        "runs": results,
        "provenance": run_folder.provenance(),
    }
    text = report(record)
    json_files.write_json(output / "tolerance.json", record)
    whole_files.write_text(output / "tolerance.md", text + "\n")
    if ERRORS.value:
        draw(results, output / "tolerance.png")
    print(text)
    print(f"written: {output}/tolerance.md, tolerance.json{', .png' if ERRORS.value else ''}")
    return 0


def draw(results: dict[str, Any], path: Path) -> None:
    """Draws the curves of all runs, a panel an error."""
    plots.plot_panels(
        {
            f"{kind} ({UNITS[kind]})": {
                name: Line(list(result["curves"][kind]), list(result["curves"][kind].values()))
                for name, result in results.items()
            }
            for kind in ERRORS.value
        },
        path,
    )


def measure_run(measure: bench_errors.Measure, spreads: dict[str, float]) -> dict[str, Any]:
    """Returns PSNR and rms of the design, of the curves, and of each random bench of one run."""
    key = jax.random.key(SEED.value)
    design = np.mean(measure(Perturbation(), 0.0, jax.random.split(key)[1]), axis=1)
    curves = bench_errors.error_curves(measure, key, kinds=tuple(ERRORS.value))
    result: dict[str, Any] = {"design_psnr": float(design[0]), "design_rms": float(design[1])}
    for name, metric in (("curves", "psnr"), ("rms_curves", "rms")):
        result[name] = {
            kind: {value: float(getattr(found, metric)) for value, found in curve.items()}
            for kind, curve in curves.items()
        }
    if BENCHES.value:
        found = bench_errors.random_benches(measure, key, count=BENCHES.value, spreads=spreads)
        threshold = result["design_psnr"] - LOSS.value if TARGET.value is None else TARGET.value
        result["bench_psnr"], result["bench_rms"] = found.psnr.tolist(), found.rms.tolist()
        result["yield"] = bench_errors.share_above(found.psnr, threshold)._asdict()
    return result


def report(record: dict[str, Any]) -> str:
    """Lays out the curves, one table an error, and the yields."""
    runs = record["runs"]
    counts = sorted(set(record["images"].values()))
    lines = [
        f"Mean PSNR (dB), and mean rms over the object, of {' or '.join(map(str, counts))} test "
        "images, each on the bench that is named, with noise drawn anew for each number "
        "(`evaluate` draws benches by the run's own jitter)."
        + " So few images leave tenths of a dB to chance."
        * (min(counts) < FEW_IMAGES),
        "",
    ]
    for kind in ERRORS.value:
        values = list(next(iter(runs.values()))["curves"][kind])
        rows = []
        for name, run in runs.items():
            psnr, rms = run["curves"][kind], run["rms_curves"][kind]
            rows.append([f"{name}: PSNR (dB)", *(f"{psnr[v]:.2f}" for v in values)])
            rows.append([f"{name}: {run['rms']}", *(f"{rms[v]:.3f}" for v in values)])
        lines += [
            markdown_table([f"{kind} ({UNITS[kind]})", *(f"{v:g}" for v in values)], rows),
            "",
        ]
    if BENCHES.value:
        spread = ", ".join(
            f"{name} {value:g} {UNITS[name]}" for name, value in record["spreads"].items()
        )
        rows = []
        for name, run in runs.items():
            found, share = np.array(run["bench_psnr"]), run["yield"]
            rows.append(
                [
                    name,
                    f"{run['design_psnr']:.2f}",
                    f"{found.mean():.2f}",
                    f"{np.percentile(found, 10):.2f}",
                    f"{share['threshold']:.2f}",
                    f"{run['design_rms']:.3f}",
                    f"{np.mean(run['bench_rms']):.3f}",
                    f"{100 * share['share']:.0f} % "
                    f"({100 * share['low']:.0f} to {100 * share['high']:.0f})",
                ]
            )
        header = ["run", "design (dB)", "mean bench (dB)", "worst tenth below", "good from"]
        rms = " or ".join(dict.fromkeys(run["rms"] for run in runs.values()))
        header += [f"design, {rms}", f"mean bench, {rms}", "yield"]
        lines += [
            f"{BENCHES.value} random benches, standard deviations: {spread}.",
            "",
            markdown_table(header, rows),
            "",
            "Yield: share of benches at or above `good from`, with its 95 % interval.",
        ]
    return "\n".join(lines).rstrip()


if __name__ == "__main__":
    cli.run(main)
