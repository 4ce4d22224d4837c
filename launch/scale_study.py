"""What many machines, many images and large scenes cost: python launch/scale_study.py FOLDER.

The parts (--only, default all) are:

* `kills`: 40 tiny runs on two workers, of which ten are killed at random while they work, compared
  with the same runs in turn, row by row and bit by bit;
* `overhead`: four runs on one worker, compared with the same in turn;
* `thousand`: the report of 1,000 runs, which are copies of four;
* `processes`: a training by two processes of one device each, compared with one of two devices;
* `gpus`: what 2, 8, 64 and 512 H100s would exchange in a step of the paper's training, from the
  compiled program;
* `sizes`: how much memory the same step takes on one of them, in batches of 8, for larger scenes;
* `largest`: the largest scene for which a step of one object fits into 24, 80 and 141 GB;
* `stream`: 100,000 PNG files that are read while training, compared with the same from memory;
* `analysis`: `ambiguity` on a scene of 512 x 512.

The results of each part go to FOLDER/PART.json.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from runpy import run_path
from typing import Any

import jax
import numpy as np
from PIL import Image

from jax_kdpr.config.schema import Config
from jax_kdpr.core import runtime
from jax_kdpr.core.provenance import provenance
from jax_kdpr.data import streaming
from jax_kdpr.data.image_files import ImageFiles, Preparation
from jax_kdpr.data.scenes import draw_scenes
from jax_kdpr.evaluation.speed.ahead import JAX_SHARE, standing_in_for
from jax_kdpr.evaluation.speed.many_devices import collectives, mesh_of
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.studies.declaration import LOGS
from jax_kdpr.studies.programs import trace_step
from jax_kdpr.studies.worker import STARTED, running_on

KILLS, WORKERS = 10, 2
FILES = 100_000
SIDES = (512, 768, 1024, 1536, 2048, 3072, 4096)
ENTRIES = ("teacher-2", "student", "e2e", "random")
STUDY = """
from jax_kdpr.config import Config
from jax_kdpr.studies.declaration import Curves, Entry, Study, Table, student_entry, teacher_entry

def get_config():
    base = Config()
    base.data.source = "scenes"
    base.data.size, base.net.widths, base.spectral.iterations = 16, (4, 8), 5
    base.data.train_images = base.data.validation_images = base.data.test_images = 32
    base.train.batch_size, base.train.epochs, base.train.devices = 8, EPOCHS, 1
    guided = {"loss.alpha": 0.9, "loss.beta": 0.05}
    entries = {
        "teacher-2": teacher_entry(2),
        "student": student_entry("student", guided, teacher="teacher-2"),
        "e2e": Entry(label="E2E"),
        "random": Entry(label="random", changes={"regime": "random"}),
    }
    shown = {"question": "q", "entries": tuple(entries)}
    table = Table(title="t", baseline="e2e", **shown)
    curves = Curves(title="c", **shown)
    return Study(
        title="t", base=base, seeds=tuple(range(SEEDS)), entries=entries, sections=(table, curves)
    )
"""


def write_study(folder: Path, *, epochs: int, seeds: int) -> None:
    """Writes the study's declaration."""
    folder.mkdir(parents=True)
    text = STUDY.replace("EPOCHS", f"{epochs}").replace("SEEDS", f"{seeds}")
    (folder / "study.py").write_text(text)


def start(folder: Path, workdir: str, *options: str) -> subprocess.Popen:
    """Starts `study`, with its output in a file."""
    command = [sys.executable, "-m", "jax_kdpr.study", "--config=study.py", f"--workdir={workdir}"]
    with (folder / f"{workdir}.txt").open("ab") as file:
        return subprocess.Popen([*command, *options], cwd=folder, stdout=file, stderr=file)


def timed(folder: Path, workdir: str, *options: str) -> float:
    """Returns the seconds of a study from start to end."""
    started = time.monotonic()
    if code := start(folder, workdir, *options).wait():
        raise RuntimeError(f"exit code {code}: {folder / workdir}.txt")
    return time.monotonic() - started


def rows(run: Path) -> list[dict[str, Any]]:
    """Returns the rows of a run without its times."""
    found = run_folder.read_metrics(run)
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in found]


def workers(workdir: Path) -> list[int]:
    """Returns the ids of the processes that have a run now, by the logs."""
    found = [running_on(log) for log in (workdir / LOGS).glob("*.txt")]
    return [int(where.rpartition("pid ")[2]) for where in found if where]


def kills(folder: Path) -> dict[str, Any]:
    """Kills workers at random until ten have died; compares all runs with the same in turn."""
    write_study(folder, epochs=3, seeds=10)
    in_turn = timed(folder, "in-turn")
    started, chance, killed = time.monotonic(), random.Random(0), 0
    process = start(folder, "killed", "--cluster=local", "--cpus_per_run=1", "--max_retries=10")
    while process.poll() is None:
        time.sleep(chance.uniform(2.0, 12.0))
        there = workers(folder / "killed") if killed < KILLS else []
        if there:
            with suppress(ProcessLookupError):
                os.kill(chance.choice(there), signal.SIGKILL)
                killed += 1
    seconds = time.monotonic() - started
    runs = [f"{entry}/seed-{seed}" for entry in ENTRIES for seed in range(10)]
    pairs = [(folder / "in-turn" / run, folder / "killed" / run) for run in runs]
    begun = "".join(log.read_text() for log in (folder / "killed" / LOGS).glob("*.txt"))
    return {
        "runs": len(runs),
        "killed": killed,
        "begun": begun.count(STARTED),
        "exit_code": process.returncode,
        "rows_equal_bit_for_bit": sum(rows(a) == rows(b) != [] for a, b in pairs),
        "largest_difference_of_scores": max(_difference(a, b) for a, b in pairs),
        "seconds_in_turn": in_turn,
        "seconds_on_two_workers": seconds,
    }


def _difference(one: Path, other: Path) -> float:
    """Returns the largest difference of the scores of two runs, image by image."""
    a, b = (np.load(run / "scores.npz") for run in (one, other))
    return max(float(np.abs(a[name] - b[name]).max()) for name in a.files)


def overhead(folder: Path) -> dict[str, Any]:
    """Times four runs in turn and on a cluster of one worker, which has all cores."""
    write_study(folder, epochs=150, seeds=1)
    found = {"runs": 4, "seconds_in_turn": timed(folder, "in-turn")}
    cores = len(os.sched_getaffinity(0))
    found["seconds_on_one_worker"] = timed(
        folder, "cluster", "--cluster=local", f"--cpus_per_run={cores}"
    )
    found["cores"] = cores
    return found


def thousand(folder: Path) -> dict[str, Any]:
    """Times the report of 1,000 runs, which are copies of four."""
    write_study(folder, epochs=3, seeds=1)
    timed(folder, "runs")
    made = (folder / "study.py").read_text().replace("range(1)", "range(250)")
    (folder / "study.py").write_text(made)
    for entry in ENTRIES:
        for seed in range(1, 250):
            run = folder / "runs" / entry / f"seed-{seed}"
            shutil.copytree(run.with_name("seed-0"), run)
            record = json.loads((run / "run.json").read_text())
            record["config"]["seed"] = seed
            teacher = record["config"]["distill"]["teacher"]
            record["config"]["distill"]["teacher"] = teacher.replace("seed-0", f"seed-{seed}")
            (run / "run.json").write_text(json.dumps(record))
    seconds = timed(folder, "runs", "--report_only")
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    size = (folder / "runs" / "report" / "report.html").stat().st_size / 1e6
    return {"runs": 1000, "seconds": seconds, "most_memory_gb": most, "report_mb": size}


TRAINING = """
from jax_kdpr import presets

def get_config():
    config = presets.cpu()
    config.data.train_images, config.data.validation_images = 1024, 128
    config.train.epochs, config.train.eval_batch_size, config.train.devices = 4, 128, 0
    return config
"""


def processes(folder: Path) -> dict[str, Any]:
    """Times epochs of `configs/cpu` at full width: by two processes, and by one of two devices."""
    folder.mkdir(parents=True)
    (folder / "config.py").write_text(TRAINING)
    given = ["--config", "config.py", "--workdir"]
    alone = [sys.executable, "-m", "jax_kdpr.train", *given, "one", "--config.train.devices=2"]
    script = Path(__file__).with_name("multi_process.sh")
    subprocess.run(alone, cwd=folder, check=True)
    subprocess.run(["bash", str(script), "2", *given, "two"], cwd=folder, check=True)
    one, two = (run_folder.read_metrics(folder / name) for name in ("one", "two"))
    differences = [
        abs(a[name] - b[name]) / max(abs(a[name]), 1e-9)
        for a, b in zip(one, two, strict=True)
        for name in ("train_total", "validation_psnr", "validation_ssim")
    ]
    return {
        "largest_relative_difference": max(differences),
        # The first epoch compiles, so it is left out.
        "epoch_seconds_two_devices": [row["train_seconds"] for row in one[1:]],
        "epoch_seconds_two_processes": [row["train_seconds"] for row in two[1:]],
    }


def compile_step(config: Config, devices: int) -> jax.stages.Compiled:
    """Compiles a step of a training for `devices` H100s."""
    config.train.scan_steps = 1
    with standing_in_for("h100"):
        return trace_step(config, None, on=mesh_of("h100", devices)).lowered.compile()


def gpus(folder: Path) -> dict[str, Any]:
    """Compiles the paper's E2E step for many H100s, and reads what they exchange."""
    folder.mkdir(parents=True)
    config = run_path("configs/paper/e2e.py")["get_config"]()
    found = {}
    for count in (2, 8, 64, 512):
        config.train.batch_size = max(64, count)
        compiled = compile_step(config, count)
        exchanges = collectives(compiled.as_text())
        memory: Any = compiled.memory_analysis()
        found[f"{count}"] = {
            "batch": config.train.batch_size,
            "kinds": sorted({one.kind for one in exchanges}),
            "exchanges": len(exchanges),
            "largest_mb": exchanges[0].bytes / 1e6,
            "others_kb": sum(one.bytes for one in exchanges[1:]) / 1e3,
            "temporaries_gb": memory.temp_size_in_bytes / 1e9,
        }
    return found


def sizes(folder: Path) -> dict[str, Any]:
    """Compiles the paper's E2E step for other scene sizes on one H100; returns its memory."""
    folder.mkdir(parents=True)
    config = run_path("configs/paper/e2e.py")["get_config"]()
    config.train.batch_size, found = 8, {}
    for config.data.size in (96, 256, 512, 1024):
        for config.masks.snapshots in (1, 9):
            memory: Any = compile_step(config, 1).memory_analysis()
            held = memory.temp_size_in_bytes + memory.argument_size_in_bytes
            found[f"{config.data.size} pixels, {config.masks.snapshots} shots, GB"] = held / 1e9
    return found


def largest(folder: Path) -> dict[str, Any]:
    """Compiles steps of one object for H100s of other memories; returns the largest that fit."""
    folder.mkdir(parents=True)
    config = run_path("configs/paper/e2e.py")["get_config"]()
    config.train.batch_size = config.train.scan_steps = 1
    found = {}
    for gigabytes in (24, 80, 141):
        memory = int(gigabytes * 1e9 * JAX_SHARE)

        def fits(size: int, most: int = memory) -> bool:
            config.data.size = size
            with runtime.standing_in(most):
                step = trace_step(config, None, on=mesh_of("h100", 1))
                used: Any = step.lowered.compile().memory_analysis()
            return used.temp_size_in_bytes + used.argument_size_in_bytes <= most

        for config.masks.snapshots in (1, 4, 9):
            sizes = [size for size in SIDES if fits(size)]
            found[f"{gigabytes} GB, {config.masks.snapshots} shots"] = max(sizes, default=0)
    return found


STREAMED = """
from jax_kdpr import presets

def get_config():
    config = presets.cpu()
    config.data.source, config.data.dir, config.data.size = "images", "png", 96
    config.data.train_images, config.net.widths = 1024, (8, 16, 32, 64)
    config.data.validation_images = config.data.test_images = 128
    config.train.epochs, config.train.validate_every = 4, 4
    return config
"""


def stream(folder: Path) -> dict[str, Any]:
    """Trains on 1,024 of 100,000 PNG files of 96 x 96: read while training, and from memory."""
    (folder / "png").mkdir(parents=True)
    (folder / "config.py").write_text(STREAMED)
    for first in range(0, FILES, 1000):
        scenes = draw_scenes(jax.random.key(first), count=1000, size=96)
        for number, scene in enumerate(np.asarray(scenes)):
            picture = Image.fromarray(np.round(255 * scene).astype(np.uint8))
            picture.save(folder / "png" / f"{first + number:06d}.png")
    found: dict[str, Any] = {"files": FILES}
    for name, memory in (("streamed", 1.0), ("held", 16.0)):
        command = [sys.executable, "-m", "jax_kdpr.train", "--config=config.py"]
        started = time.time()
        given = [f"--workdir={name}", f"--config.data.memory={memory}"]
        subprocess.run([*command, *given], cwd=folder, check=True)
        metrics = run_folder.read_metrics(folder / name)
        seconds = [row["train_seconds"] for row in metrics[1:]]  # the first epoch compiles
        found[f"{name}: images a second of training"] = 1024 / float(np.median(seconds))
        found[f"{name}: seconds in all"] = time.time() - started
    found["rows equal"] = rows(folder / "streamed") == rows(folder / "held")
    wanted = Preparation(size=96)
    files = ImageFiles(folder / "png", wanted)
    read = streaming.Stream(files, np.arange(len(files)), 0.0)
    batches = read.batches(jax.random.key(0), batch_size=64, channels=1, steps=300)
    with streaming.in_workers(batches) as made:
        next(made)
        started = time.monotonic()
        count = 64 * sum(1 for _ in made)
    found["read alone: images a second"] = count / (time.monotonic() - started)
    return found


SCENES = """
from jax_kdpr import presets

def get_config():
    config = presets.cpu()
    config.data.source, config.data.size = "scenes", 512
    config.data.train_images, config.data.validation_images, config.data.test_images = 512, 2, 16
    return config
"""


def analysis(folder: Path) -> dict[str, Any]:
    """Times `ambiguity` on one scene of 512 x 512, 262,144 unknowns."""
    folder.mkdir(parents=True)
    (folder / "config.py").write_text(SCENES)
    command = [sys.executable, "-m", "jax_kdpr.ambiguity", "--config=config.py", "--random"]
    given = ["--scenes=1", "--steps=10", "--photons=1e7", "--output=report"]
    started = time.monotonic()
    subprocess.run([*command, *given], cwd=folder, check=True)
    seconds = time.monotonic() - started
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    report = json.loads((folder / "report" / "ambiguity.json").read_text())
    return {"seconds": seconds, "most_memory_gb": most, "report": report}


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "kills": kills,
    "overhead": overhead,
    "thousand": thousand,
    "processes": processes,
    "gpus": gpus,
    "sizes": sizes,
    "largest": largest,
    "stream": stream,
    "analysis": analysis,
}


def main() -> None:
    """Makes the parts that are asked for, and writes the results of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    asked = parser.parse_args()
    for name in asked.only:
        found = PARTS[name](asked.folder / name)
        made = {name: found, "provenance": provenance()}
        (asked.folder / f"{name}.json").write_text(json.dumps(made, indent=1) + "\n")
        print(json.dumps(found, indent=1), flush=True)


if __name__ == "__main__":
    main()
