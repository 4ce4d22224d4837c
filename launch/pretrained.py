"""Turns a run into a system that comes with the package: `python launch/pretrained.py RUN NAME`.

It writes the run's best checkpoint and its card into jax_kdpr/runs/trained. The card has the scores
of the written system, which is in half precision, not of the run. For NAME=bench-32 it also writes
a simulated bench's frames and their calibration, which the package's demonstration recovers.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from jax_kdpr.core import json_files
from jax_kdpr.evaluation.scoring import score_run
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs import pretrained, reduced
from jax_kdpr.runs.run import load_run


class System(NamedTuple):
    """What a card says besides its numbers."""

    says: str
    limits: str
    commands: list[str]  # those that trained it


TRAIN = "python -m jax_kdpr.train --config configs/"
SYSTEMS = {
    "e2e-32": System(
        "The paper's end-to-end system at 32 x 32: one shot, no noise, an ideal modulator.",
        "Made to be compared with, and for simulations without noise. Its objects are garments "
        "(Fashion-MNIST).",
        [f"{TRAIN}cpu/e2e.py --workdir runs/e2e-32"],
    ),
    "gated-32": System(
        "Our best at 32 x 32 without noise: one shot, error reduction before and after the "
        "network, trained twice.",
        "It fits noise: at an SNR of 20 dB a system that was trained with noise is better. Its "
        "objects are garments (Fashion-MNIST).",
        [
            f"{TRAIN}recipe/e2e.py --workdir runs/first",
            f"{TRAIN}recipe/student.py --workdir runs/gated-32 --config.distill.teacher=runs/first",
        ],
    ),
    "bench-32": System(
        "A bench at 32 x 32: one shot, a modulator of 256 levels, a 12-bit camera with noise, "
        "errors of alignment, two samples in the finest fringe, error reduction before the "
        "network.",
        "Its objects are procedural scenes with phases up to pi, and its bench is the simulated "
        "one. Train for your own objects and bench before you trust it with them.",
        [f"{TRAIN}bench_consistent/e2e.py --workdir runs/bench --config.train.epochs=40"],
    ),
    "gated-96": System(
        "The paper's size, 96 x 96, without noise: one shot, error reduction before and after the "
        "network.",
        "Nine of the paper's 120 epochs, with rates that had not come down. It fits noise. Its "
        "objects are garments (Fashion-MNIST).",
        ["bash gpu_slot.sh train 9 1  # on a GPU: docs/science/gpu_speed.md"],
    ),
}
FRAMES = 6


def main(run: Path, name: str) -> None:
    """Packs one run."""
    record = run_folder.read_run(run)
    file = pretrained.FOLDER / f"{name}{pretrained.ENDING}"
    pretrained.FOLDER.mkdir(parents=True, exist_ok=True)
    reduced.pack(run, file, for_use=True)
    with tempfile.TemporaryDirectory() as temporary:
        scored = score_run(load_run(pretrained.workdir(name)), output=Path(temporary))
    session, rows = record["sessions"][-1], run_folder.read_metrics(run)
    card = {
        **SYSTEMS[name]._asdict(),
        "commit": session["commit"],
        "device": describe(session),
        "seconds": round(sum(row["seconds"] for row in rows), 1),
        **{"seed": scored.config.seed, "data": scored.config.data.source},
        "test_images": len(next(iter(scored.scores.values())).mse),
        "scores": scored.result["scores"],
    }
    json_files.write_json(file.with_name(f"{name}.json"), card)
    print(
        f"{file}: {file.stat().st_size / 1e6:.2f} MB, {card['scores']['recovered']['psnr']:.2f} dB"
    )
    if name == "bench-32":
        write_example(name, file.with_name(name))


def describe(session: dict[str, Any]) -> str:
    """Names the devices of a session of run.json."""
    first = session["devices"][0]
    return f"{len(session['devices'])} x {session['cpu'] if first == 'cpu' else first}"


def write_example(name: str, folder: Path) -> None:
    """Simulates a bench of the system, and calibrates it."""
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m"]
    bench = ["--pretrained", name, "--output", folder, "--frames", str(FRAMES), "--photons", "1e7"]
    subprocess.run([*command, "jax_kdpr.simulate_bench", *bench], check=True)
    files = {flag: folder / f"{flag}.tif" for flag in ("dark", "flat", "bad_pixels")}
    given = [f"--{flag}={path}" for flag, path in files.items()]
    blank = [f"--input={folder}/calibration/*.tif", "--scale=3", "--bin=2", f"--pretrained={name}"]
    output = f"--output={folder / 'calibration.json'}"
    subprocess.run([*command, "jax_kdpr.calibrate", *blank, *given, output], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
