"""What `adapt` wins back on benches unlike the design: python launch/adaptation_study.py FOLDER.

For each seed a system is trained (`base_config`). It recovers 64 objects of its kind on simulated
benches, before and after an adaptation to other objects on the same bench. The frames are the
model's own, on its grid, with a camera's noise: nothing about geometry is tested here. There is one
row for each bench, number of objects, number of photons and way of teaching. Rows that are there
are not made again, and FOLDER/report.md has all rows so far. `--only bench:all,none objects:200`
makes those alone.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jax_kdpr as kdpr
from jax_kdpr.config import presets, schema
from jax_kdpr.config.schema import Config
from jax_kdpr.core.options import changed
from jax_kdpr.core.provenance import provenance
from jax_kdpr.data.batches import take_batch
from jax_kdpr.lab.masks.further import with_further
from jax_kdpr.optics.misalignment import JitterOptions
from jax_kdpr.runs.run import Run
from jax_kdpr.studies.statistics import over_seeds

SHOTS, TESTED, MOST = 9, 64, 1000
SEEDS = (0, 1, 2)
LEAST = 1.0  # dB that a bench must cost before a share of this cost means something
WAVE = 2 * np.pi
GAP = {"gap": 2e-3, "wavelength": 532e-9, "pitch": 64e-6}
BENCHES: dict[str, dict[str, dict[str, Any]]] = {
    "none": {},
    "flatness": {"aberrations": {"file": "flatness.npy"}},  # 0.1 waves rms
    "beam": {"illumination": {"kind": "gaussian", "waist": 0.6}},
    "crosstalk": {"device": {"crosstalk": 0.2}},
    "gain": {"device": {"gain": 1.1}},
    "defocus": {"aberrations": {"zernike": (0.0, 0.0, 0.0, 0.1 * WAVE)}},
    "gap": {"propagation": GAP},
    "all": {
        "aberrations": {"file": "flatness.npy", "zernike": (0.0, 0.0, 0.0, 0.1 * WAVE)},
        "illumination": {"kind": "gaussian", "waist": 0.6},
        "device": {"crosstalk": 0.2, "gain": 1.1},
        "propagation": GAP,
    },
}
WAYS = {  # what the adaptation is given beside the frames
    "nine shots, empty beam, fit": ("--blank", "{blank}", "--fit", "crosstalk,gain"),
    "nine shots, empty beam": ("--blank", "{blank}", "--fit", ""),
    "nine shots": (),
    "one shot": ("--shots", "1"),
}
BEST = next(iter(WAYS))


class Case(NamedTuple):
    """One adaptation."""

    seed: int
    bench: str
    objects: int
    photons: float
    way: str

    @property
    def name(self) -> str:
        """Name of its files."""
        way = list(WAYS).index(self.way)
        return f"{self.bench}-{self.objects}-{self.photons:.0e}-way{way}-seed{self.seed}"


def base_config(seed: int) -> Config:
    """Returns the config of the system that is to be adapted."""
    config = presets.fast(presets.quickstart())
    config.noise.kind, config.noise.photons, config.noise.full_well = "camera", 1e6, 1e5
    config.train.epochs, config.seed = 20, seed
    return config


def cases() -> list[Case]:
    """Returns all cases, the most wanted first."""
    wanted = [("none", 200, 1e7, BEST), ("all", 200, 1e7, BEST)]
    wanted += [("all", 200, 1e7, way) for way in list(WAYS)[1:]]
    wanted += [("none", 200, 1e7, "one shot")]
    wanted += [(bench, 200, 1e7, BEST) for bench in BENCHES if bench not in ("none", "all")]
    wanted += [
        (bench, objects, photons, BEST)
        for photons in (1e7, 1e5)
        for objects in (50, 200, 1000)
        for bench in ("all", "none")
        if (objects, photons) != (200, 1e7)
    ]
    return [Case(seed, *one) for one in wanted for seed in SEEDS]


def smooth_phase(size: int) -> np.ndarray:
    """Returns a panel's flatness of 0.1 waves rms, in radians.

    It is noise behind a Gaussian low-pass filter of 0.05 cycles a pixel.
    """
    frequency = np.fft.fftfreq(size)
    squared = frequency[:, None] ** 2 + frequency[None] ** 2
    noise = np.fft.fft2(np.random.default_rng(0).normal(size=(size, size)))
    phase = np.fft.ifft2(noise * np.exp(-squared / (2 * 0.05**2))).real
    return ((phase - phase.mean()) / phase.std() * 0.1 * WAVE).astype(np.float32)


def shoot(run: Run, images: jax.Array, photons: float, folder: Path) -> None:
    """Writes what a bench shows: all shots of the objects, and those of no object."""
    quiet = changed(run.camera.noise, photons=photons, full_well=photons / 10)
    camera = dataclasses.replace(run.camera, jitter=JitterOptions(), noise=quiet)
    measure = jax.jit(dataclasses.replace(run.system, camera=camera).measure)

    def taken(scenes: jax.Array, number: int) -> np.ndarray:
        shots = measure(run.variables[0], scenes, jax.random.key(number))
        return np.fft.fftshift(np.asarray(shots), axes=(2, 3)).astype(np.float32)

    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "blank.npy", taken(jnp.zeros_like(images[:16]), 10**6)[0])
    shots = [
        taken(images[jnp.arange(n, n + 16) % len(images)], n) for n in range(0, len(images), 16)
    ]
    np.save(folder / "shots.npy", np.concatenate(shots)[: len(images)])


def objects_of(config: Config) -> jax.Array:
    """Draws objects that no training has seen [n h w 1]."""
    data = changed(
        config.data,
        **{"seed": 10_000 + config.data.seed, "test_images": TESTED + MOST},
        **{"train_images": 64, "validation_images": 64},
    )
    images = schema.load_data(changed(config, data=data)).test
    return take_batch(images, jnp.arange(len(images)), size=data.size, channels=1)


def psnr(run: kdpr.Run, shots: np.ndarray, images: jax.Array) -> float:
    """Returns the mean PSNR of a system on the first shots of the tested objects, in dB."""
    gain = None if run.camera.knows_light else 1.0
    found = run.reconstruct(shots[:TESTED, 0], centred=True, gain=gain)
    return float(jnp.mean(run.camera.score(jnp.asarray(found.image), images[:TESTED]).psnr))


def make(case: Case, folder: Path) -> None:
    """Makes the row of a case."""
    base = folder / "base" / f"seed-{case.seed}"
    config = base_config(case.seed)
    kdpr.train(config, base)
    run = kdpr.load(base)
    images = objects_of(run.config)
    np.save(folder / "flatness.npy", smooth_phase(config.data.size))
    optics = json.loads(json.dumps(BENCHES[case.bench]))
    if optics.get("aberrations", {}).get("file"):
        optics["aberrations"]["file"] = str((folder / "flatness.npy").resolve())
    frames = folder / "frames" / f"{case.bench}-{case.photons:.0e}-seed-{case.seed}"
    if not (frames / "shots.npy").exists():
        shoot(with_further(run.with_optics(optics), SHOTS), images, case.photons, frames)
    shots = np.load(frames / "shots.npy", mmap_mode="r")
    given = [word.format(blank=frames / "blank.npy") for word in WAYS[case.way]]
    count = int(given[given.index("--shots") + 1]) if "--shots" in given else SHOTS
    taught = shots[TESTED : TESTED + case.objects, :count]
    np.save(folder / "taught.npy", taught.reshape(-1, *taught.shape[2:]))
    output = folder / "adapted" / case.name
    command = [
        *(sys.executable, "-m", "jax_kdpr.adapt", "--workdir", str(base)),
        *("--input", str(folder / "taught.npy"), "--output", str(output)),
        *("--scale", "1", "--sampling", "area", "--mask_pixels", "point", *given),
        *([] if count == 1 else ["--shots", str(SHOTS)]),
    ]
    started = time.monotonic()
    subprocess.run(command, check=True)
    record = {
        **case._asdict(),
        "before": psnr(run, shots, images),
        "after": psnr(kdpr.load(output), shots, images),
        "seconds": time.monotonic() - started,
        "provenance": provenance(),
    }
    (folder / "rows").mkdir(exist_ok=True)
    (folder / "rows" / f"{case.name}.json").write_text(json.dumps(record, indent=1) + "\n")


Rows = dict[int, dict[str, Any]]  # of one case, by seed


def won_back(found: Rows, design: Rows, level: str) -> str:
    """Returns how much of the cost of a bench is won back, in percent.

    The cost is the distance to the same system on the bench as designed, either as it was
    ("before") or when taught on that bench too ("after"). Seeds with a cost below `LEAST` are left
    out; the text is empty if none is left.
    """
    shares = [
        100 * (row["after"] - row["before"]) / (design[seed][level] - row["before"])
        for seed, row in found.items()
        if seed in design and design[seed][level] - row["before"] > LEAST
    ]
    return over_seeds(shares).text(".0f") if shares else ""


def report(folder: Path) -> str:
    """Returns the table of all rows so far."""
    rows = [json.loads(path.read_text()) for path in sorted((folder / "rows").glob("*.json"))]
    commits, processors = (
        ", ".join(sorted({row["provenance"][name] for row in rows})) for name in ("commit", "cpu")
    )
    lines = [
        "# What `adapt` wins back",
        "",
        f"Made by `python launch/adaptation_study.py FOLDER`, commit {commits}; {processors},",
        f"one core. PSNR of {TESTED} objects that are not among those taught, from one shot each;",
        "means over seeds ± half of their 95 % interval. Won back: of the distance to the same",
        "system on a bench as designed, and to one that was taught on that bench as long, by 200",
        "objects.",
        "",
        "| bench | taught by | objects | photons | seeds | before (dB) | after (dB) "
        "| won back (%) | of a taught one (%) | seconds |",
        "|" + " --- |" * 10,
    ]
    by_case: dict[tuple, Rows] = {}
    for row in rows:
        by_case.setdefault(Case(**{k: row[k] for k in Case._fields})[1:], {})[row["seed"]] = row
    for case in dict.fromkeys(one[1:] for one in cases()):
        if (found := by_case.get(case)) is None:
            continue
        bench, objects, photons, way = case
        cells = [bench, way, f"{objects}", f"{photons:.0e}", f"{len(found)}"]
        cells += [
            over_seeds([row[n] for row in found.values()]).text() for n in ("before", "after")
        ]
        design = {} if bench == "none" else by_case.get(("none", 200, photons, BEST), {})
        cells += [won_back(found, design, level) for level in ("before", "after")]
        cells.append(f"{np.median([row['seconds'] for row in found.values()]):.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Makes the rows that are missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=[], help="FIELD:VALUE[,VALUE] of a case")
    asked = parser.parse_args()
    only = {
        name: values.split(",") for name, _, values in (one.partition(":") for one in asked.only)
    }
    asked.folder.mkdir(parents=True, exist_ok=True)
    for case in cases():
        is_wanted = all(str(getattr(case, name)) in values for name, values in only.items())
        if is_wanted and not (asked.folder / "rows" / f"{case.name}.json").exists():
            print(f"== {case.name}", flush=True)
            make(case, asked.folder)
            (asked.folder / "report.md").write_text(report(asked.folder))


if __name__ == "__main__":
    main()
