"""Writes the trained masks of a run as files for a device, and verifies such files.

    python -m jax_kdpr.export_mask --workdir RUN --format slm --panel 1080x1920 --verify
    python -m jax_kdpr.export_mask --workdir RUN --format height --wavelength 635e-9 --index 1.46
    python -m jax_kdpr.export_mask --workdir RUN --verify_file FILE [FILE ...]
    python -m jax_kdpr.export_mask --config CONFIG --output DIR --format slm ...

Formats: slm (gray levels of a panel), height (metres, of an etched or printed mask), npy, csv and
tiff (radians). The .json beside each file states every convention: sign, orientation, levels,
place on the panel, checkpoint. They hold the mask alone: --correction and --grating write what the
panel is to show into a file of its own beside it, shown-0.png.
A device that adds the phase p multiplies the light by e^{j p}, and the trained operator multiplies
it by e^{-j phi}. --sign conjugate, the default, writes p = -phi, and --sign direct writes p = phi.
--verify reads the files back from disk, and measures the run's test images through them in the
meaning that the .json states. If that costs more than --max_loss dB, it says which mistake would
explain the loss, and the exit code is 1. It cannot know what your panel really does with a gray
level.
--verify_file does the same for files that exist already, such as one that another tool has changed;
their .json must lie beside them.
--config in place of --workdir exports masks that no training has made, such as those of masks.file.
--teacher 9 writes nine masks, the run's own first; for `adapt`, take each object through all nine.
"""

import sys
from pathlib import Path

import numpy as np
from absl import flags

from jax_kdpr.core.errors import InputError
from jax_kdpr.interface import cli, mask_flags, system_flags
from jax_kdpr.lab.bench_file import GRATING_NEEDS_LENS
from jax_kdpr.lab.masks.export import doubts, export_masks, in_words, magnify_warning
from jax_kdpr.lab.masks.further import with_further
from jax_kdpr.lab.masks.request import plan_export
from jax_kdpr.lab.masks.shown import grating_note, plan_addition
from jax_kdpr.lab.masks.verification import explain, verdict_line, verify_files
from jax_kdpr.optics.mask_files.format import SUFFIXES
from jax_kdpr.optics.mask_files.reading import ERROR, SHOWN, shown_path

flags.adopt_module_key_flags(system_flags)
CONFIG = cli.define_config()
flags.adopt_module_key_flags(mask_flags)
OUTPUT = flags.DEFINE_string("output", None, "Folder for the files; default: RUN/export.")
TEACHER = flags.DEFINE_integer(
    "teacher",
    0,
    "Shots of each object, for `adapt`: writes further masks too, always the same ones for a run; "
    "0: the run's own alone.",
    lower_bound=0,
    upper_bound=1000,
)
VERIFY = flags.DEFINE_bool("verify", False, "Verify the files after writing them.")
VERIFY_FILE = flags.DEFINE_string("verify_file", None, "Verify this file; more may follow it.")
IMAGES = flags.DEFINE_integer(
    "images", 1000, "Test images to verify with; 0: all.", lower_bound=0, upper_bound=10_000_000
)
MAX_LOSS = flags.DEFINE_float(
    "max_loss", 0.1, "Loss in dB that still passes.", lower_bound=0.0, upper_bound=1000.0
)
DATA_DIR = flags.DEFINE_string("data_dir", "", "Where the data lie now, if they have moved.")

VERIFICATION = ("images", "max_loss", "data_dir")


def main(positional: list[str]) -> int:
    """Exports, verifies, or both."""
    config = system_flags.read_system_config(CONFIG)
    _check_flags(positional)
    if VERIFY_FILE.value:
        return _verify([Path(file) for file in (VERIFY_FILE.value, *positional)])
    bench = mask_flags.fill_from_bench(config)
    plan = plan_export(mask_flags.read_request(), config)
    asked = mask_flags.read_shown()
    if asked.grating and config.propagation.kind != "far":
        raise InputError(f"--grating: {GRATING_NEEDS_LENS}")
    addition = plan_addition(asked, plan, size=config.data.size)
    run = system_flags.read_system(config)
    run = with_further(run, TEACHER.value) if TEACHER.value else run
    phases = np.asarray(run.camera.written(run.phases))
    output = system_flags.output_folder(OUTPUT.value, "export")
    written = export_masks(plan, phases, run, output=output, addition=addition)
    print(in_words(plan, phases.shape[1:]))
    for path, sidecar in written.items():
        print(f"written: {path} and {path.name}.json; at most {sidecar[ERROR]:.2g} rad off")
        if more := sidecar.get(SHOWN):
            shown, missed = shown_path(path), more[ERROR]
            print(f"to show: {shown}, with {more['adds']}; at most {missed:.2g} rad off")
    if asked.grating:
        bench.modulator.pixel_pitch = plan.pixel_pitch or bench.modulator.pixel_pitch
        print(f"note: {grating_note(bench, asked.grating, plan.side, sign=plan.sign)}")
    for doubt in (doubts(plan, written), magnify_warning(plan, config.device)):
        if doubt:
            print(doubt, file=sys.stderr)
    return _verify(list(written)) if VERIFY.value else 0


def _verify(paths: list[Path]) -> int:
    workdir = Path(system_flags.WORKDIR.value or "")
    verdict = verify_files(
        workdir, paths, images=IMAGES.value, max_loss=MAX_LOSS.value, data_dir=DATA_DIR.value
    )
    for note in verdict.notes:
        print(f"note: {note}")
    print(verdict_line(verdict))
    if verdict.loss <= MAX_LOSS.value:
        return 0
    print(
        f"verification failed: {', '.join(path.name for path in paths)}: loss {verdict.loss:.2f} "
        f"dB above --max_loss {MAX_LOSS.value:g}: {explain(verdict)}",
        file=sys.stderr,
    )
    return 1


def _check_flags(positional: list[str]) -> None:
    """Refuses a command line with a flag missing, or with one that nothing would read."""
    if CONFIG.value is not None and (VERIFY.value or VERIFY_FILE.value):
        raise InputError(
            "--config: a file is verified by what a trained network recovers through it; give "
            "--workdir, or leave --verify and --verify_file out"
        )
    if VERIFY_FILE.value:
        own = {flag.name for flag in flags.FLAGS.get_key_flags_for_module("__main__")}
        unread = sorted(own - {"workdir", "verify_file", *VERIFICATION})
        cli.refuse_given(unread, "is not read with --verify_file, which goes by the file's .json")
        return
    cli.require_no_more(positional, "files follow --verify_file")
    if not flags.FLAGS["format"].value:
        raise InputError(f"--format: expected {', '.join(SUFFIXES)} (or --verify_file), got none")
    if VERIFY.value and TEACHER.value:
        raise InputError(
            "--verify: the network knows no further masks; verify those of the run, then export "
            "with --teacher alone"
        )
    if not VERIFY.value:
        cli.refuse_given(VERIFICATION, "is read only with --verify or --verify_file")


if __name__ == "__main__":
    cli.run(main)
