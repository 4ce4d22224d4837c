"""Fuzzed flags and options of one command: `python tests/fuzz_options.py COMMAND COUNT RUN`.

Each attempt is a fork of this process, which has imported the command: it must be accepted, that is
come to where the command begins its work, or end with one line and code 2, and take no memory.
Prints {"held": {outcome: count}, "lost": [outcome]} as JSON.
"""

import importlib
import json
import os
import random
import resource
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from absl import flags

from jax_kdpr.config import schema as config_lib
from jax_kdpr.core import runtime
from jax_kdpr.evaluation.uniqueness import comparison
from jax_kdpr.interface import cli
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.training import setup as preparation

ACCEPTED, SECONDS, KILOBYTES = 77, 60, 700_000
CONFIG = str(Path(__file__).parents[1] / "configs" / "quickstart" / "e2e.py")
NUMBERS = [
    *("-1", "0", "1", "2", "3.5", "1e-320", "1e39", "-1e39", "nan", "inf", str(2**31)),
    *("1" + 30 * "0", "9" * 5000, "532e-6", "200", "2*pi", "0x10", "1_000"),
]
TEXTS = [
    *("", "~", "(1,2)", "1,2,3", "1,2,3,4", "100000x100000", "0x0", "é", "a\nb"),
    *("None", "True", "[]"),
]
# Where each command begins its work.
WORK = {
    "train": (preparation, "load_teacher"),
    "evaluate": (run_folder, "require_same_data"),
    "solve": ("load_run",),
    "tolerance": ("load_run",),
    "ambiguity": (comparison, "make_subject"),
    "reconstruct": ("list_frames",),
    "calibrate": ("list_frames",),
    "export_mask": ("load_run",),
    "simulate_bench": ("load_run",),
    "benchmark": ("Wanted",),
    "geometry": ("bench_geometry",),
}
NEEDED = {
    "train": ["--config", CONFIG, "--workdir", "new"],
    "benchmark": ["--config", CONFIG],
    "ambiguity": ["--config", CONFIG, "--random"],
    "export_mask": ["--format", "slm"],
    "calibrate": ["--input", "frames", "--output", "c.json"],
    "reconstruct": ["--input", "frames"],
    "simulate_bench": ["--output", "bench"],
    "geometry": [
        *("--wavelength", "532e-9", "--focal_length", "0.2", "--mask_pitch", "8e-6"),
        *("--pixels", "96", "--camera_pixel", "3.45e-6"),
    ],
}


def attempts(command: str, rng: random.Random) -> Iterator[list[str]]:
    """Gives command lines, each with one or two fuzzed flags or options."""
    own = [f.name for f in flags.FLAGS.get_key_flags_for_module(f"jax_kdpr.{command}")]
    names = [name for name in own if not name.startswith("config")]
    if "config" in flags.FLAGS:
        names = 2 * [f"config.{path}" for path in config_lib.field_paths()] + names
    while True:
        chosen = rng.sample(names, rng.choice((1, 1, 2)))
        yield [f"--{name}={rng.choice(3 * NUMBERS + TEXTS)}" for name in chosen]


def attempt(command: str, arguments: list[str]) -> tuple[str, bool]:
    """Returns what came of a command line, and whether that is a fault."""
    with tempfile.TemporaryFile("w+") as said:
        child = os.fork()
        if not child:
            _be(command, arguments, said.fileno())
        _, status, usage = os.wait4(child, 0)
        said.seek(0)
        lines = said.read().strip().splitlines()
    code = os.waitstatus_to_exitcode(status)
    spent = usage.ru_maxrss - resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    what = f"{' '.join(argument[:60] for argument in arguments)}: code {code}, {lines[-1:]}"
    if spent > KILOBYTES:
        return f"{what}, {spent:,} kB", True
    if code == ACCEPTED:
        return "accepted", False
    if code == 2 and len(lines) == 1 and lines[0].startswith("error: "):
        return "one line", False
    return what, True


def _be(command: str, arguments: list[str], said: int) -> None:
    """Runs the command in this process, up to its work, and ends."""
    os.dup2(said, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    signal.alarm(SECONDS)
    sys.argv = [command, *NEEDED.get(command, []), *arguments]
    try:
        cli.run(sys.modules[f"jax_kdpr.{command}"].main)
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    """Tries COUNT command lines."""
    command, count, run = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    module = importlib.import_module(f"jax_kdpr.{command}")
    *given, name = WORK[command]
    setattr(given[0] if given else module, name, _Work())
    runtime.set_up = lambda: None
    if "workdir" in flags.FLAGS and command not in ("train", "ambiguity", "geometry"):
        NEEDED.setdefault(command, []).extend(["--workdir", run])
    rng, held, lost = random.Random(command), Counter(), []
    tries = attempts(command, rng)
    for _ in range(count):
        outcome, is_lost = attempt(command, next(tries))
        if is_lost:
            lost.append(f"{command} {outcome}")
        else:
            held[outcome] += 1
    print(json.dumps({"held": held, "lost": lost}))


class _Work:
    """In place of the work: whoever calls it, or looks into it, was accepted."""

    def __call__(self, *_: object, **__: object) -> None:
        os._exit(ACCEPTED)

    def __getattr__(self, _: str) -> None:
        os._exit(ACCEPTED)


if __name__ == "__main__":
    main()
