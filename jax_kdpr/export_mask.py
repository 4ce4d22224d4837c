"""Writes the trained masks of a run as files for a device, and verifies such files.

    python -m jax_kdpr.export_mask --workdir RUN --format slm --panel 1080x1920 --verify
    python -m jax_kdpr.export_mask --workdir RUN --format height --wavelength 635e-9 --index 1.46
    python -m jax_kdpr.export_mask --workdir RUN --verify_file FILE [FILE ...]

Formats: slm (gray levels of a panel), height (metres, of an etched or printed mask), npy, csv and
tiff (radians). The .json beside each file states every convention: sign, orientation, levels,
place on the panel, checkpoint. No correction is included.
A device that adds the phase p multiplies the light by e^{j p}, the trained operator by e^{-j phi}:
--sign conjugate, the default, writes p = -phi, and --sign direct p = phi.
--verify reads the files back from disk, measures the run's test images through them as the .json
says they are meant, and ends with exit code 1 if that costs more than --max_loss dB; it then says
which mistake would explain it. What your panel really does with a gray level it cannot know.
--verify_file does the same for files that are there already, such as one that a tool of yours
has changed; their .json must lie beside them.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from jax_kdpr.core import json_files
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import read_pixels
from jax_kdpr.interface import cli
from jax_kdpr.lab import bench_file
from jax_kdpr.lab.masks.files import CONJUGATE, DIRECT, SLM, sidecar_path
from jax_kdpr.lab.masks.request import SUFFIXES, Request, plan_export
from jax_kdpr.lab.masks.verification import explain, verify_files
from jax_kdpr.lab.masks.writing import export_masks, sentences
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.run import load_run

WORKDIR = flags.DEFINE_string("workdir", None, "Run folder.")
flags.adopt_module_key_flags(bench_file)
FORMAT = flags.DEFINE_enum("format", None, list(SUFFIXES), "slm, height, npy, csv or tiff.")
OUTPUT = flags.DEFINE_string("output", None, "Folder for the files; default: RUN/export.")
flags.DEFINE_enum(
    "sign", CONJUGATE, [CONJUGATE, DIRECT], "conjugate writes p = -phi, direct p = phi."
)
flags.DEFINE_float("wavelength", 0.0, "Metres; height needs it.")
flags.DEFINE_float("mask_pitch", 0.0, "Metres from one mask pixel to the next.")
flags.DEFINE_bool("flip_vertical", False, "Exchange top and bottom.")
flags.DEFINE_bool("flip_horizontal", False, "Exchange left and right.")
flags.DEFINE_integer("rotate", 0, "Degrees counter-clockwise, a multiple of 90; after the flips.")
flags.DEFINE_string("format_file", "", "slm: png, tiff or bmp; height: tiff, npy or csv.")
flags.DEFINE_bool("stack", False, "npy, tiff: all masks in one file [k h w].")

PANEL = flags.DEFINE_string("panel", "", "slm: HEIGHTxWIDTH in pixels; default: just the mask.")
flags.DEFINE_float("pixel_pitch", 0.0, "slm: metres from one panel pixel to the next.")
flags.DEFINE_integer("magnify", 0, "slm: panel pixels each way that show one mask pixel.")
flags.DEFINE_bool("tile", False, "slm: repeat the mask over the panel instead of centring it.")
flags.DEFINE_integer("background", 0, "slm: gray level around a centred mask.")
flags.DEFINE_integer("bits", 8, "slm: 8, 10 (right-justified in 16) or 16.")
GRAY_2PI = flags.DEFINE_integer(
    "gray_2pi", 0, "slm: gray level of a phase of 2 pi, which is level 0 again; default: 2^bits."
)
flags.DEFINE_string("table", "", "slm: measured phase of each gray level, CSV or NPY (radians).")
flags.DEFINE_bool("falling", False, "slm: phase 0 is the brightest level, as slmsuite has it.")

flags.DEFINE_float("index", 0.0, "height: refractive index, in transmission.")
flags.DEFINE_bool("reflection", False, "height: in reflection.")
flags.DEFINE_integer("levels", 0, "height: etch levels; 0: any height.")

VERIFY = flags.DEFINE_bool("verify", False, "Verify the files after writing them.")
VERIFY_FILE = flags.DEFINE_string("verify_file", None, "Verify this file; more may follow it.")
IMAGES = flags.DEFINE_integer(
    "images", 1000, "Test images to verify with; 0: all.", lower_bound=0, upper_bound=10_000_000
)
MAX_LOSS = flags.DEFINE_float(
    "max_loss", 0.1, "Loss in dB that is fine.", lower_bound=0.0, upper_bound=1000.0
)
DATA_DIR = flags.DEFINE_string("data_dir", "", "Where the data lie now, if not where they were.")

ERROR = "largest_phase_error_rad"  # in a sidecar
MISSED = 0.2  # radians off that a measured table should not be
VERIFICATION = ("images", "max_loss", "data_dir")


def main(positional: list[str]) -> int:
    """Exports, verifies, or both."""
    if not WORKDIR.value:
        raise InputError("--workdir: a run folder is needed, such as runs/e2e")
    _check_flags(positional)
    workdir = Path(WORKDIR.value)
    if VERIFY_FILE.value:
        return _verify(workdir, [Path(file) for file in (VERIFY_FILE.value, *positional)])
    config = run_folder.read_config(workdir)
    _fill_from_bench()
    plan = plan_export(_request(), config)
    run = load_run(workdir)
    phases = np.asarray(run.camera.written(run.phases))
    output = Path(OUTPUT.value) if OUTPUT.value else workdir / "export"
    paths = export_masks(plan, phases, run, output=output)
    print(sentences(plan, phases.shape[1:]))
    coding = plan.coding
    if coding.kind == SLM and not (coding.table or GRAY_2PI.value):
        print(
            f"note: a phase of 2 pi is taken to be gray level {coding.gray_2pi}; if your panel "
            "reaches it elsewhere, give --gray_2pi or --table: no verification can know"
        )
    for path in paths:
        print(_summary(path))
    missed = max(json_files.read_json(sidecar_path(path))[ERROR] for path in paths)
    if coding.table and missed > MISSED:
        print(
            f"warning: the table's phases are up to {missed:.2g} rad off the trained ones: a panel "
            "does not show what it has no gray level for; train with this table (config.device."
            "table = device_table(FILE), docs/bench.md)",
            file=sys.stderr,
        )
    return _verify(workdir, paths) if VERIFY.value else 0


def _summary(path: Path) -> str:
    sidecar = json_files.read_json(sidecar_path(path))
    line = f"written: {path} and {path.name}.json; at most {sidecar[ERROR]:.2g} rad off"
    relief = sidecar.get("relief")
    if relief:
        length = relief["smallest_feature_m"]
        line += (
            f"; smallest feature {relief['smallest_feature_pixels']} mask pixel(s)"
            f"{f' = {length:.3g} m' if length else ''}, largest step "
            f"{relief['largest_step_m']:.3g} m"
        )
    return line


def _verify(workdir: Path, paths: list[Path]) -> int:
    verdict = verify_files(
        workdir, paths, images=IMAGES.value, max_loss=MAX_LOSS.value, data_dir=DATA_DIR.value
    )
    for note in verdict.notes:
        print(f"note: {note}")
    print(
        f"PSNR over {verdict.images:,} test images, and rms over the object: trained masks "
        f"{verdict.trained:.2f} dB, {verdict.trained_rms:.3f}{verdict.rms_unit}; file "
        f"{verdict.found:.2f} dB, {verdict.found_rms:.3f}{verdict.rms_unit}; loss "
        f"{verdict.loss:.3f} ± {verdict.loss_error:.3f} dB"
    )
    if verdict.loss <= MAX_LOSS.value:
        return 0
    print(
        f"verification failed: {_names(paths)}: loss {verdict.loss:.2f} dB above --max_loss "
        f"{MAX_LOSS.value:g}: {explain(verdict)}",
        file=sys.stderr,
    )
    return 1


def _check_flags(positional: list[str]) -> None:
    """Refuses what is missing, and what nothing would read."""
    given = [
        name
        for name in (flag.name for flag in flags.FLAGS.get_key_flags_for_module("__main__"))
        if flags.FLAGS[name].present
    ]
    if VERIFY_FILE.value:
        unread = set(given) - {"workdir", "verify_file", *VERIFICATION}
        if unread:
            raise InputError(
                f"--{min(unread)}: is not read with --verify_file, which goes by the file's .json; "
                "leave it out"
            )
        return
    if positional:
        raise InputError(f"expected flags only, got {positional[0]!r}; files follow --verify_file")
    if not FORMAT.value:
        raise InputError(f"--format: expected {', '.join(SUFFIXES)} (or --verify_file), got none")
    unread = [name for name in VERIFICATION if name in given and not VERIFY.value]
    if unread:
        raise InputError(
            f"--{unread[0]}: is read only with --verify or --verify_file; leave it out"
        )


INSTEAD = {"table": ["gray_2pi"], "gray_2pi": ["table"], "mask_pitch": ["magnify"]}


def _fill_from_bench() -> None:
    """What the format reads of --bench; a run's own lengths are checked against it."""
    bench = bench_file.read_bench()
    modulator = bench.modulator
    values: dict[str, Any] = {"wavelength": bench.wavelength}
    if FORMAT.value == SLM:
        panel = {"panel": bench_file.sides(modulator.panel)}
        names = ("pixel_pitch", "magnify", "bits", "gray_2pi", "table")
        values |= panel | {name: getattr(modulator, name) for name in names}
        # What a flag says in another way is not taken from the file beside it.
        for flag, others in INSTEAD.items():
            if flags.FLAGS[flag].present:
                values |= dict.fromkeys(others)
    else:
        values["mask_pitch"] = modulator.mask_pitch
    bench_file.fill(values)


def _request() -> Request:
    values: dict[str, Any] = {
        name: flags.FLAGS[name].value for name in Request._fields if name != "panel"
    }
    return Request(**values, panel=read_pixels("--panel", PANEL.value) if PANEL.value else None)


def _names(paths: list[Path]) -> str:
    return ", ".join(path.name for path in paths)


if __name__ == "__main__":
    cli.run(main)
