"""Calibration by gradient: benches that are known in every number."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
from commands import refusal
from helpers import rejection, tiny_config, untrained_run

from jax_kdpr.config import checks
from jax_kdpr.config.schema import Config
from jax_kdpr.lab.frames.fitting import Problem, Shot, fit_optics
from jax_kdpr.lab.frames.geometry import Geometry
from jax_kdpr.lab.frames.measured import pixel_side
from jax_kdpr.lab.frames.parameters import FITTED, fitted_camera, is_determined
from jax_kdpr.lab.frames.simulated_bench import Bench, as_the_camera_sees, camera_light
from jax_kdpr.optics.camera import Camera
from jax_kdpr.optics.misalignment import MountOptions
from jax_kdpr.optics.objects import SceneOptions, read_alone, scene_field
from jax_kdpr.recovery.solvers import amplitude_misfit

SIZE = 16
RNG = np.random.default_rng(0)
PHASES = jnp.asarray(RNG.uniform(0, 2 * np.pi, (1, SIZE, SIZE)), jnp.float32)
IMAGE = jnp.asarray(RNG.uniform(0, 1, (SIZE // 4, SIZE // 4, 1)).repeat(4, 0).repeat(4, 1))
UNIT, OFFSET = 900.0, 3.0
PLACE = Geometry(33.2, 30.7, 1.0, 3.05, "vertical")
TRUE = {
    "illumination": {"kind": "gaussian", "waist": 0.6, "centre": (0.03, -0.02)},
    "aberrations": {"zernike": (0.0, 0.0, 0.0, 0.9, 0.0, 0.3)},
    "mount": {"shift_y": 0.3, "shift_x": -0.2},
}


def photographed(camera: Camera, image, place: Geometry) -> np.ndarray:
    """A frame by the simulated bench, which integrates a spline of the pattern over its pixels."""
    bench, spectra = as_the_camera_sees(camera, Bench(place, (66, 64), pixel_side=1.0))
    optics = camera.optics(PHASES)
    light = camera_light(
        np.asarray(spectra(scene_field(image, camera.scene), optics))[0], bench, axis=(0, 0)
    )
    return UNIT * light + OFFSET


@pytest.mark.slow
def test_a_bench_is_found_with_error_bars_that_hold():
    design = Camera(size=SIZE)
    frame = photographed(fitted_camera(design, TRUE), IMAGE, PLACE)
    noisy = RNG.poisson(frame).astype(float)
    names = ["defocus", "astigmatism", "waist", "beam", "shift", "offset"]
    start = Geometry(32.0, 32.0, 0.0, 2.95)
    how = {"pixel_side": 1.0, "sampling": "points"}
    found = fit_optics([Shot(IMAGE, [noisy])], design, PHASES, start, names, **how)
    assert found.trusted and found.score > 0.97
    assert (found.geometry.flip, found.geometry.transpose) == ("vertical", False)
    np.testing.assert_allclose(found.geometry[:2], PLACE[:2], atol=0.1)
    np.testing.assert_allclose(found.geometry.scale, PLACE.scale, rtol=3e-3)
    true = {
        "aberrations.zernike[3]": 0.9,
        "aberrations.zernike[4]": 0.0,
        "aberrations.zernike[5]": 0.3,
        "illumination.waist": 0.6,
        "illumination.centre[0]": 0.03,
        "illumination.centre[1]": -0.02,
        "mount.shift_y": 0.3,
        "mount.shift_x": -0.2,
    }
    assert set(found.errors) == set(true)
    for name, (value, error) in found.errors.items():
        assert abs(value - true[name]) < max(5 * error, 0.02), name
        assert is_determined(name, value, error)
    np.testing.assert_allclose(found.counts_per_unit, UNIT, rtol=0.05)
    np.testing.assert_allclose(found.offset, OFFSET, atol=1.5)


def test_slopes_are_those_of_small_steps():
    # Not where squares meet samples: there a slope has two sides.
    camera = Camera(size=SIZE, mount=MountOptions(shift_y=0.15, shift_x=0.1, rotation=0.2))
    frame = photographed(camera, IMAGE, PLACE)
    names = [name for name in FITTED if name != "zero_order"]
    problem = Problem(
        [Shot(IMAGE, [frame])], camera, PHASES, names, pixel_side=1.0, sampling="points"
    )
    state = problem.begin(PLACE, defocus=0.3)
    slopes = problem._jacobian(state)
    for column, number in enumerate(problem._free):
        ends = []
        for step in (0.02, -0.02):
            v = state.v.copy()
            v[number] += step
            ends.append(problem._residuals(state._replace(v=v)))
        wanted = (ends[0] - ends[1]) / 0.04
        error = np.linalg.norm(slopes[:, column] - wanted) / np.linalg.norm(wanted)
        assert error < 0.05, number


def test_what_a_frame_does_not_hold_has_a_wide_bar():
    """No phase of a flat mask tells what the device makes of phases, nor where the mask sits."""
    camera = Camera(size=SIZE)
    flat = jnp.zeros_like(PHASES)
    bench, spectra = as_the_camera_sees(camera, Bench(PLACE, (66, 64), pixel_side=1.0))
    light = camera_light(
        np.asarray(spectra(scene_field(IMAGE, camera.scene), camera.optics(flat)))[0],
        bench,
        axis=(0, 0),
    )
    how = {"pixel_side": 1.0, "sampling": "points", "orientations": [("vertical", False)]}
    found = fit_optics([Shot(IMAGE, [UNIT * light])], camera, flat, PLACE, ["gain", "waist"], **how)
    assert not is_determined("device.gain", *found.errors["device.gain"])
    assert is_determined("illumination.waist", *found.errors["illumination.waist"])


FITS = "--fit=defocus,waist,offset"
REFUSED = [
    (("--fit=defocus,waste",), "--fit"),
    (("--fit=defocus,defocus",), "--fit"),
    (("--flatness=none.npy",), "--flatness"),
    ((FITS, "--flatness=none.npy"), "aberrations.file"),
    ((FITS, "--rotation_range=3"), "--rotation_range"),
    ((FITS, "--workdir=run"), "--workdir"),
    ((FITS, "--config.illumination.kind=intensity", "--config.illumination.file={beam}"), "--fit"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A config, a frame, and a picture of a beam."""
    folder = tmp_path_factory.mktemp("fits")
    lines = "config.data.size = 16\n    config.data.source = 'scenes'\n    return config"
    (folder / "config.py").write_text(
        "from jax_kdpr.config import Config\n\n\ndef get_config():\n    config = Config()\n    "
        f"{lines}\n"
    )
    frame = photographed(fitted_camera(Camera(size=SIZE), TRUE), IMAGE, PLACE)
    tifffile.imwrite(folder / "frame.tif", frame.round().astype(np.uint16))
    np.save(folder / "beam.npy", np.ones((16, 16), np.float32))
    return folder


@pytest.mark.parametrize(("options", "named"), REFUSED)
def test_what_cannot_be_fitted_is_refused_and_writes_nothing(place, options, named):
    given = [one.format(beam=place / "beam.npy") for one in options]
    said = refusal(
        "calibrate",
        f"--config={place / 'config.py'}",
        f"--input={place / 'frame.tif'}",
        f"--output={place / 'found.json'}",
        *given,
    )
    assert named in said and not (place / "found.json").exists()


def test_a_calibration_sets_the_optics_of_a_training(tmp_path):
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps({"optics": TRUE}))
    config = Config(optics=str(path))
    ready = checks.ready(config)
    assert ready.illumination.waist == 0.6 and ready.mount.shift_y == 0.3
    assert ready.aberrations.zernike == TRUE["aberrations"]["zernike"]
    assert checks.ready(ready) == ready
    config.illumination.kind, config.illumination.waist = "gaussian", 0.7
    said = rejection(checks.ready, config)
    assert said.startswith("illumination.waist") and "leave out one" in said
    for wrong in ({"illumination": {"waste": 1.0}}, {"mount": {"shift_y": "far"}}, {"lens": {}}):
        path.write_text(json.dumps({"optics": wrong}))
        assert rejection(checks.ready, Config(optics=str(path))).startswith("optics:")
    path.write_text("{}")
    assert "calibrate --fit" in rejection(checks.ready, Config(optics=str(path)))


def test_a_run_believes_in_the_bench_that_was_found():
    run = untrained_run(tiny_config(), Path())
    bench = run.with_optics(TRUE)
    assert run.camera.beam is None and bench.camera.beam is not None
    images = jnp.asarray(RNG.uniform(size=(1, 16, 16, 1)), jnp.float32)
    y = bench.system.measure(bench.variables[0], images, jax.random.key(0))
    field = scene_field(images[0], bench.camera.scene)
    assert amplitude_misfit(field, y[0], bench.optics) < 1e-3
    assert amplitude_misfit(field, y[0], run.optics) > 0.1


@pytest.mark.parametrize("phase_range", [2.0, 4.68])
def test_an_image_is_read_alone_at_any_global_phase(phase_range):
    scene = SceneOptions(phase_range=phase_range)
    image = jnp.asarray(RNG.uniform(size=(16, 16, 1)), jnp.float32).at[:4].set(0.0).at[4, 0].set(1)
    for turn in (0.0, 2.2, -1.0):
        read = read_alone(scene_field(image, scene) * jnp.exp(1j * turn), scene)
        np.testing.assert_allclose(read, image, atol=0.04)


@pytest.mark.parametrize(
    "changes", [{"sensor__step": 0.5}, {"device__crosstalk": 0.3}, {"mount__shift_y": 0.5}, {}]
)
def test_the_far_field_has_the_envelope_of_square_pixels(changes):
    run = untrained_run(tiny_config(**changes), Path())
    assert pixel_side(run) == 1.0
    assert run.camera.knows_light == ("sensor__step" in changes or not changes)
