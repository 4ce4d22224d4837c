"""Frames that a real bench has measured: unpacks them, and draws what came out.

docs/science/measured.md has all of it.

    python docs/figures/measured.py unpack $KDPR_MEASURED_DIR work/measured
    python docs/figures/measured.py report work/measured results/measured

The objects go to files as images in [0, 1], of the modulator's gray levels 30 to 220. The report
holds each frame against the model, and each recovered phase against the displayed one and against
all of Fashion-MNIST's test images ($KDPR_DATA_DIR), low-passed to what the frame holds.
"""

import importlib.util
import json
import math
import os
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import tifffile
from PIL import Image

from jax_kdpr.data import fashion_mnist
from jax_kdpr.lab.frames.calibration import read_calibration
from jax_kdpr.lab.frames.geometry import to_sensor
from jax_kdpr.lab.frames.measured import simulate
from jax_kdpr.runs.run import untrained

RANGE = 190 / 255 * 2 * math.pi  # radians from gray level 30 to 220
HELD = 10.0  # cycles of the object's side that 41 samples of half a cycle hold, each way
SHOWN = {1: 7, 2: 106}  # test images
SIZE = 32
HOW = {"solver alone": "solver", "network": "network", "network, --refine 30": "refined"}


def unpack(source: Path, folder: Path) -> None:
    """Writes frame-N.tif, counts, and object-N.tif, in [0, 1]."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in SHOWN:
        with np.load(source / f"frame-{number}.npz") as file:
            counts, phase = file["intensity"], file["displayed_phase"]
        tifffile.imwrite(folder / f"frame-{number}.tif", counts)
        image = (phase - phase.min()) / RANGE
        tifffile.imwrite(folder / f"object-{number}.tif", image.astype(np.float32))


def report(folder: Path, output: Path) -> None:
    """Writes results.md, results.json and frames.png."""
    output.mkdir(parents=True, exist_ok=True)
    candidates = lowpass(test_images()).reshape(-1, SIZE * SIZE)
    figure, axes = plt.subplots(2, 7, figsize=(17, 5.4), layout="constrained")
    rows = []
    for line, (number, shown) in zip(axes, SHOWN.items(), strict=True):
        counts = tifffile.imread(folder / f"frame-{number}.tif").astype(float)
        displayed = RANGE * tifffile.imread(folder / f"object-{number}.tif")
        displayed = displayed.reshape(SIZE, 4, SIZE, 4).mean((1, 3))
        other = 3 - number
        calibration = read_calibration(folder / f"calibration-{other}.json")
        model, score = modelled(calibration, displayed / RANGE, counts)
        pictures = [np.sqrt(np.maximum(counts, 0)), model, displayed, lowpass(displayed)]
        for name, where in HOW.items():
            path = folder / f"{where}-{number}" / f"frame-{number}.npy"
            if not path.exists():
                sys.exit(
                    f"error: {path} is missing; run the commands of docs/science/measured.md first"
                )
            phase = np.load(path)
            found = against(phase, displayed, candidates, shown)
            rows.append({"frame": number, "fitted on": other, "recovered by": name, **found})
            if name != "network":
                pictures.append(lowpass(phase))
        rows[-1]["model"] = score
        pictures.append(pictures[-1] - pictures[3] - (pictures[-1] - pictures[3]).mean())
        titles = [
            f"frame {number}, root",
            f"model, from frame {other}",
            "displayed phase",
            "displayed, as held",
            "solver alone",
            "network, refined",
            "its error",
        ]
        for axis, picture, title in zip(line, pictures, titles, strict=True):
            is_phase = title not in titles[:2]
            limits = {"vmin": -1.0, "vmax": 5.0} if is_phase else {"vmin": 0.0, "vmax": 45.0}
            drawn = axis.imshow(picture, cmap="viridis" if is_phase else "gray", **limits)
            axis.set_title(title, fontsize=9)
            axis.axis("off")
        figure.colorbar(drawn, ax=line, shrink=0.8, label="rad")
    figure.savefig(output / "frames.png", dpi=90)
    fits = {}
    for number in SHOWN:
        found = json.loads((folder / f"calibration-{number}.json").read_text())
        fits[number] = {name: found[name] for name in ("score", "runner_up", "errors", "offset")}
    (output / "results.json").write_text(json.dumps({"rows": rows, "fits": fits}, indent=2) + "\n")
    (output / "results.md").write_text(table(rows))
    print(table(rows))


def modelled(calibration, image: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns amplitudes that a bench of a calibration would have, and how they correlate."""
    spec = importlib.util.spec_from_file_location("config", "configs/measured/random.py")
    config = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(config)
    run = untrained(config.get_config()).with_optics(calibration.optics)
    y = simulate(run, np.asarray(image, np.float32)[..., None])[0]
    where = {"sampling": "points", "axis": run.camera.axis}
    seen = to_sensor(counts - calibration.offset, calibration.geometry, run.sensor, **where)
    pair = [np.fft.fftshift(np.sqrt(np.maximum(one, 0))) for one in (y, seen)]
    score = float(np.corrcoef(pair[0].ravel(), pair[1].ravel())[0, 1])
    return pair[0] * np.sqrt(calibration.counts_per_unit) / calibration.geometry.scale, score


def against(phase, displayed, candidates, shown: int) -> dict[str, float | int]:
    """Returns correlations with the displayed phase, and the place of its image among all."""
    held, wanted = lowpass(phase), lowpass(displayed)
    scores = np.array([correlation(held.ravel(), one) for one in candidates])
    object_ = displayed > 0.1 * RANGE
    gain = np.polyfit(held.ravel(), wanted.ravel(), 1)
    left = np.polyval(gain, held) - wanted
    return {
        "correlation": correlation(held, wanted),
        "over the silhouette": correlation(held[object_], wanted[object_]),
        "rms, rad": float(left.std()),
        "place": int((scores > scores[shown]).sum()) + 1,
    }


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's."""
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def lowpass(images: np.ndarray) -> np.ndarray:
    """What is left below `HELD` cycles of the side, each way."""
    kept = np.abs(np.fft.fftfreq(SIZE, 1 / SIZE)) <= HELD
    return np.fft.ifft2(np.fft.fft2(images) * kept[:, None] * kept).real


def test_images() -> np.ndarray:
    """All 10,000 of Fashion-MNIST, at the model's size."""
    _, images = fashion_mnist.read_folder(Path(os.environ["KDPR_DATA_DIR"]))
    pictures = [Image.fromarray(one.astype(np.float32)) for one in images]
    return np.stack([one.resize((SIZE, SIZE), Image.Resampling.BILINEAR) for one in pictures])


def table(rows: list[dict]) -> str:
    """Returns the rows in Markdown."""
    names = ["frame", "fitted on", "recovered by", "correlation", "over the silhouette", "rms, rad"]
    lines = [f"| {' | '.join([*names, 'place among 10,000'])} |", "| --- " * 7 + "|"]
    for row in rows:
        values = [
            row[name] if isinstance(row[name], int | str) else f"{row[name]:.3f}"
            for name in (*names, "place")
        ]
        lines.append(f"| {' | '.join(map(str, values))} |")
    models = [f"frame {row['frame']}: {row['model']:.3f}" for row in rows if "model" in row]
    said = "Amplitudes of a frame and of the model that was fitted on the other, correlation"
    return "\n".join([*lines, "", f"{said}: {'; '.join(models)}."]) + "\n"


if __name__ == "__main__":
    command, source, target = sys.argv[1:]
    {"unpack": unpack, "report": report}[command](Path(source), Path(target))
