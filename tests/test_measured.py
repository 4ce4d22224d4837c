"""Frames that a real bench has published (docs/science/measured.md): fitted and recovered."""

import importlib.util
import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ROOT
from oracles import lowpass
from PIL import Image

from jax_kdpr.data import fashion_mnist
from jax_kdpr.lab.frames.fitting import Shot, fit_optics
from jax_kdpr.lab.frames.geometry import Geometry, to_sensor
from jax_kdpr.lab.frames.parameters import fitted_camera
from jax_kdpr.lab.frames.recovery import make_recover
from jax_kdpr.optics.camera import Camera
from jax_kdpr.optics.cdp import measure_intensity
from jax_kdpr.optics.objects import SceneOptions, scene_field
from jax_kdpr.optics.window import SensorOptions
from jax_kdpr.runs.run import untrained

FOLDER = os.environ.get("KDPR_MEASURED_DIR", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER, reason="KDPR_MEASURED_DIR is not set"),
]


RANGE = 190 / 255 * 2 * np.pi
WINDOW = SensorOptions(step=0.5, rows=41, columns=41)
DESIGN = Camera(size=32, scene=SceneOptions(phase_range=RANGE), grid=WINDOW)
FLAT = jnp.zeros((1, 32, 32))
SHOWN = {1: 7, 2: 106}  # test image of Fashion-MNIST


def measured_frame(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts, and the phase that was displayed."""
    with np.load(Path(FOLDER) / f"frame-{number}.npz") as file:
        return file["intensity"].astype(float), file["displayed_phase"]


def shown_images() -> np.ndarray:
    """Test images of Fashion-MNIST at the model's size, [0, 255]."""
    _, images = fashion_mnist.read_folder(Path(os.environ["KDPR_DATA_DIR"]))
    pictures = [Image.fromarray(one.astype(np.float32)) for one in images[:2000]]
    return np.stack([one.resize((32, 32), Image.Resampling.BILINEAR) for one in pictures])


def object_of(number: int) -> np.ndarray:
    """The displayed phase over its range, at the model's size."""
    _, phase = measured_frame(number)
    return ((phase - phase.min()) / RANGE).reshape(32, 4, 32, 4).mean((1, 3))


def fitted(number: int, image: np.ndarray):
    frame, _ = measured_frame(number)
    shot = Shot(jnp.asarray(image, jnp.float32)[..., None], [frame])
    start, names = Geometry(63.5, 63.5, 0.0, 3.0), ["defocus", "waist", "offset"]
    return fit_optics([shot], DESIGN, FLAT, start, names, pixel_side=0.0, sampling="points")


def cdp(number: int, found) -> np.ndarray:
    """A frame on the model's grid, in its unit."""
    frame, _ = measured_frame(number)
    where = {"sampling": "points", "axis": (0, 0)}
    return to_sensor(frame - found.offset, found.geometry, DESIGN.sensor, **where) / (
        found.counts_per_unit
    )


@pytest.mark.parametrize(("known", "other"), [(1, 2), (2, 1)])
def test_a_measured_frame_tells_the_bench_and_the_bench_the_other_object(known, other):
    found = fitted(known, object_of(known))
    assert found.trusted and found.score > 0.94
    assert (found.geometry.flip, found.geometry.transpose) == ("none", False)
    camera = fitted_camera(DESIGN, found.optics)
    optics = camera.optics(FLAT)
    image = jnp.asarray(object_of(other), jnp.float32)[..., None]
    field = scene_field(image, camera.scene)
    expected = np.asarray(measure_intensity(field, optics.masks, path=optics.path))[0]
    seen = cdp(other, found)
    amplitudes = [np.sqrt(np.maximum(one, 0)).ravel() for one in (expected, seen)]
    assert np.corrcoef(*amplitudes)[0, 1] > 0.93

    # Without a network, and without having seen any object: the displayed one is the nearest.
    recover = make_recover(untrained(read_config()).on_one_device().with_optics(found.optics))
    recovered = recover(jnp.asarray(seen, jnp.float32)[None, None])
    phase = lowpass(np.asarray(recovered.image)[0, ..., 0], 10.0)
    candidates = lowpass(shown_images(), 10.0).reshape(-1, 32 * 32)
    scores = np.array([np.corrcoef(phase.ravel(), one)[0, 1] for one in candidates])
    assert np.argmax(scores) == SHOWN[other] and scores.max() > 0.85


def read_config():
    spec = importlib.util.spec_from_file_location("c", ROOT / "configs" / "measured" / "random.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


@pytest.mark.parametrize(("frame", "shown"), [(1, 2), (2, 8)])
def test_an_object_that_is_not_the_one_shown_is_not_trusted(frame, shown):
    assert not fitted(frame, shown_images()[shown] / 255).trusted
