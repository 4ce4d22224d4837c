"""Beams and wavefronts: against closed forms, dense matrices, and recoveries that ignore them."""

import dataclasses
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from helpers import rejection, tiny_config, untrained_run

import jax_kdpr as kdpr
from jax_kdpr.config import checks
from jax_kdpr.evaluation.scoring import score_run
from jax_kdpr.evaluation.tolerance import Request, check_request, require_beam
from jax_kdpr.optics.beam import AberrationOptions, IlluminationOptions, read_beam
from jax_kdpr.optics.camera import Camera
from jax_kdpr.optics.misalignment import JitterOptions, Perturbation, draw
from jax_kdpr.optics.zernike import ROUND_OBJECT, noll, zernike
from jax_kdpr.recovery.data_consistency import error_reduction, phasor
from jax_kdpr.recovery.spectral import SpectralOptions, gaussian_kernel, spectral_estimates
from jax_kdpr.runs import reduced
from jax_kdpr.runs.assembly import build_camera
from jax_kdpr.runs.run import load_run
from jax_kdpr.training import loop

SIZE = 12
START = SpectralOptions()
# Noll (1976), table I: (n, m) of j = 1 ... 15, and some of the polynomials, r up to 1.
TABLE = [(0, 0), (1, 1), (1, 1), (2, 0), (2, 2), (2, 2), (3, 1), (3, 1), (3, 3), (3, 3)]
TABLE += [(4, 0), (4, 2), (4, 2), (4, 4), (4, 4)]
FORMS = {
    1: lambda r, t: np.ones_like(r),
    2: lambda r, t: 2 * r * np.cos(t),
    3: lambda r, t: 2 * r * np.sin(t),
    4: lambda r, t: math.sqrt(3) * (2 * r**2 - 1),
    5: lambda r, t: math.sqrt(6) * r**2 * np.sin(2 * t),
    6: lambda r, t: math.sqrt(6) * r**2 * np.cos(2 * t),
    7: lambda r, t: math.sqrt(8) * (3 * r**3 - 2 * r) * np.sin(t),
    8: lambda r, t: math.sqrt(8) * (3 * r**3 - 2 * r) * np.cos(t),
    9: lambda r, t: math.sqrt(8) * r**3 * np.sin(3 * t),
    11: lambda r, t: math.sqrt(5) * (6 * r**4 - 6 * r**2 + 1),
    12: lambda r, t: math.sqrt(10) * (4 * r**4 - 3 * r**2) * np.cos(2 * t),
}


def polar(size: int, radius: float):
    places = (np.arange(size) - (size - 1) / 2) / size / radius
    y, x = np.meshgrid(places, places, indexing="ij")
    return np.hypot(y, x), np.arctan2(y, x)


def gaussian(waist: float, y: float = 0.0, x: float = 0.0) -> np.ndarray:
    places = (np.arange(SIZE) - (SIZE - 1) / 2) / SIZE
    return np.exp(-((places[:, None] - y) ** 2 + (places[None, :] - x) ** 2) / waist**2)


def normed(amplitude: np.ndarray) -> np.ndarray:
    return amplitude / np.sqrt(np.mean(amplitude**2))


def beam(size: int = SIZE, *, zernike=(), phases: str = "", **illumination):
    light = IlluminationOptions(**illumination)
    return read_beam(light, AberrationOptions(zernike=zernike, file=phases), size=size)


def phases(k: int = 1) -> jnp.ndarray:
    drawn = np.random.default_rng(0).uniform(0, 2 * np.pi, (k, SIZE, SIZE))
    return jnp.asarray(drawn, jnp.float32)


def images(count: int = 1) -> jnp.ndarray:
    return jnp.asarray(np.random.default_rng(5).uniform(size=(count, SIZE, SIZE, 1)), jnp.float32)


def test_zernike_polynomials_are_those_of_nolls_table():
    assert [noll(j) for j in range(1, len(TABLE) + 1)] == TABLE
    r, t = polar(SIZE, ROUND_OBJECT)
    for number, form in FORMS.items():
        found = zernike(number, SIZE, radius=ROUND_OBJECT)
        np.testing.assert_allclose(found, form(r, t), atol=2e-6, err_msg=str(number))


def test_zernike_polynomials_are_orthonormal_over_their_disc(x64):
    size, inside = 400, polar(400, 0.5)[0] <= 1
    stack = np.array([np.asarray(zernike(j, size, radius=0.5))[inside] for j in range(1, 16)])
    gram = stack @ stack.T / inside.sum()
    np.testing.assert_allclose(gram, np.eye(15), atol=0.02)  # of pixels at the rim


def test_incident_field_of_a_gaussian_beam_has_its_waist_and_mean_light_of_one():
    found = np.asarray(beam(kind="gaussian", waist=0.6).incident())
    np.testing.assert_allclose(np.mean(np.abs(found) ** 2), 1, rtol=1e-6)
    np.testing.assert_allclose(found / found.max(), gaussian(0.6) / gaussian(0.6).max(), atol=1e-6)


@pytest.mark.parametrize("oversample", [1, 2])
def test_cdp_is_that_of_the_beam_times_the_object(oversample):
    wavefront = (0.0, 0.0, 0.0, 1.5, -0.7)
    camera = Camera(
        size=SIZE, oversample=oversample, beam=beam(kind="gaussian", waist=0.5, zernike=wavefront)
    )
    r, t = polar(SIZE, ROUND_OBJECT)
    lit = gaussian(0.5) / np.sqrt(np.mean(gaussian(0.5) ** 2))
    lit = lit * np.exp(1j * sum(c * FORMS[j + 1](r, t) for j, c in enumerate(wavefront)))
    field = lit * np.exp(1j * np.pi * np.asarray(images()[0, ..., 0]))
    expected = oracles.intensity(field, np.asarray(phases(2)), oversample)
    for by in (None, Perturbation()):
        found = camera.measure(camera.optics(phases(2)), images(), jax.random.key(0), by)[0]
        np.testing.assert_allclose(found, expected, atol=2e-5 * expected.max())


def test_errors_of_a_beam_are_beams_that_lie_elsewhere_with_the_same_light():
    lit = beam(kind="gaussian", waist=0.5, zernike=(0.0, 0.0, 0.0, 0.8))
    moved = np.abs(lit.incident(Perturbation(beam_y=0.1, beam_x=-0.2)))
    np.testing.assert_allclose(moved, normed(gaussian(0.5, 0.1, -0.2)), rtol=1e-5)
    wider = np.abs(lit.incident(Perturbation(waist=math.log(1.2))))
    np.testing.assert_allclose(wider, normed(gaussian(0.6)), rtol=1e-5)
    longer = np.angle(lit.incident(Perturbation(wavelength=0.25)))
    np.testing.assert_allclose(longer, np.angle(lit.incident()) / 1.25, atol=1e-5)


def test_an_error_of_the_wavefront_is_that_wavefront():
    plane = Camera(size=SIZE)
    wrong = dataclasses.replace(plane, beam=beam(zernike=(0.0,) * 6 + (0.9,)))
    key = jax.random.key(0)
    found = plane.measure(plane.optics(phases()), images(), key, Perturbation(z7=0.9))
    expected = wrong.measure(wrong.optics(phases()), images(), key)
    np.testing.assert_allclose(found, expected, atol=2e-5 * float(expected.max()))


def test_new_errors_leave_the_draws_of_old_ones_as_they_were():
    key, spreads = jax.random.key(3), JitterOptions(shift=1.0, gain=1.0)
    drawn = draw(key, spreads)
    expected = jax.random.normal(key, (7,))
    assert (drawn.shift_y, drawn.shift_x) == (expected[0], expected[1])
    assert drawn.gain == expected[6]
    assert drawn.z5 == drawn.beam_x == 0
    rms = [draw(jax.random.key(k), JitterOptions(wavefront=0.5)) for k in range(300)]
    total = np.array([[getattr(by, f"z{j}") for j in range(5, 12)] for by in rms])
    np.testing.assert_allclose(np.sqrt(np.mean(np.sum(total**2, axis=1))), 0.5, rtol=0.1)


def test_error_reduction_finds_a_phase_object_in_an_uneven_beam_only_if_it_knows_the_beam():
    plane = Camera(size=SIZE)
    known = dataclasses.replace(
        plane, beam=beam(kind="gaussian", waist=0.7, zernike=(0.0, 0.0, 0.0, 1.0))
    )
    optics = known.optics(phases(4))
    measured = known.measure(optics, images(), jax.random.key(0))[0]
    truth = np.asarray(known.encode(images())[0])
    start = jnp.ones((SIZE, SIZE), jnp.complex64)

    def agreement(optics) -> float:
        found = error_reduction(start, measured, optics=optics, steps=400, scene=plane.scene)
        return oracles.correlation(np.asarray(found), truth)

    assert agreement(optics) > 0.999
    assert agreement(plane.optics(phases(4))) < 0.9


def test_pictures_of_a_beam_are_read_in_any_unit_as_amplitude_or_intensity(tmp_path):
    wanted = gaussian(0.5)
    np.save(tmp_path / "amplitude.npy", 7 * wanted)
    np.save(tmp_path / "intensity.npy", 300 * wanted**2)
    expected = np.abs(beam(kind="gaussian", waist=0.5).incident())
    for kind in ("amplitude", "intensity"):
        found = beam(kind=kind, file=str(tmp_path / f"{kind}.npy")).incident()
        np.testing.assert_allclose(np.abs(found), expected, rtol=1e-5)


def test_cameras_of_equal_beams_are_equal_and_of_others_are_not(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("one", "other"):
        np.save(tmp_path / f"{name}.npy", rng.uniform(size=(SIZE, SIZE)).astype(np.float32))
    shutil.copy(tmp_path / "one.npy", tmp_path / "same.npy")

    def camera(name: str) -> Camera:
        return Camera(size=SIZE, beam=beam(phases=str(tmp_path / f"{name}.npy")))

    assert camera("one") == camera("same") and hash(camera("one")) == hash(camera("same"))
    assert camera("one") != camera("other")


@pytest.mark.slow
def test_a_run_carries_its_beam_with_it_and_leaves_masks_that_exist_as_they_are(tmp_path):
    config = tiny_config(optim__schedule="constant")  # or it could not be packed
    size = config.data.size
    rng = np.random.default_rng(0)
    files = {name: tmp_path / f"{name}.npy" for name in ("mask", "light", "wave")}
    mask = rng.uniform(0, 2 * np.pi, (1, size, size)).astype(np.float32)
    for file, values in zip(files.values(), (mask, 2.0 + mask[0], mask[0] / 9), strict=True):
        np.save(file, values)
    config.masks.start, config.masks.file = "file", str(files["mask"])
    config.masks.trained = False
    config.illumination.kind, config.illumination.file = "intensity", str(files["light"])
    config.aberrations.file = str(files["wave"])
    loop.train(config, tmp_path / "run")
    expected = np.asarray(build_camera(config).beam.incident())
    score_run(load_run(tmp_path / "run"))  # whose files lie beside the copies
    np.save(files["wave"], mask[0] / 8)
    assert "aberrations digest" in rejection(loop.train, config, tmp_path / "run")
    for file in files.values():
        file.unlink()
    assert loop.train(config, tmp_path / "run")["validation_psnr"] > 0  # finished already
    reduced.pack(tmp_path / "run", tmp_path / "run.tar.gz")
    reduced.unpack(tmp_path / "run.tar.gz", tmp_path / "unpacked")
    np.testing.assert_array_equal(load_run(tmp_path / "unpacked").camera.beam.incident(), expected)
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    run = load_run(tmp_path / "elsewhere")
    np.testing.assert_array_equal(run.phases, mask)
    np.testing.assert_array_equal(run.camera.beam.incident(), expected)
    np.save(tmp_path / "elsewhere" / "given_illumination.npy", mask[0])
    assert "is not what the run was trained with" in rejection(load_run, tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "given_illumination.npy").unlink()
    assert "restore it from a copy" in rejection(load_run, tmp_path / "elsewhere")


def bad_files(folder) -> None:
    even = np.ones((SIZE, SIZE), np.float32)
    np.save(folder / "negative.npy", even - 2 * np.eye(SIZE, dtype=np.float32))
    np.save(folder / "nan.npy", np.where(np.eye(SIZE) > 0, np.nan, even).astype(np.float32))
    np.save(folder / "oblong.npy", even[:-2])
    np.save(folder / "small.npy", even[:-2, :-2])
    np.save(folder / "dark.npy", 0 * even)
    np.save(folder / "two.npy", np.stack([even, even]))
    np.save(folder / "levels.npy", even.astype(np.uint8))


@pytest.mark.parametrize(
    ("illumination", "aberrations", "says"),
    [
        ("negative", "", "illumination.file: expected light, no value below 0"),
        ("dark", "", "illumination.file: expected light"),
        ("nan", "", "illumination.file: expected finite numbers"),
        ("oblong", "", "illumination.file: expected a square picture"),
        ("two", "", "illumination.file: expected one picture, got 2"),
        ("none", "", "illumination.file: expected a file, got no file"),
        ("", "nan", "aberrations.file: expected finite numbers"),
        ("", "small", "aberrations.file: expected 12 x 12 phases"),
        ("", "levels", "aberrations.file: expected phases in radians as floats"),
    ],
)
def test_a_beam_that_cannot_be_used_is_refused(tmp_path, illumination, aberrations, says):
    bad_files(tmp_path)
    light, wave = IlluminationOptions(), AberrationOptions()
    if illumination != "":
        light.kind = "amplitude"
        light.file = str(tmp_path / f"{illumination}.npy")
    if aberrations:
        wave.file = str(tmp_path / f"{aberrations}.npy")
    assert rejection(read_beam, light, wave, size=SIZE).startswith(says)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"masks.start": "file"}, "masks.file: goes with masks.start=file"),
        ({"masks.file": "x.npy"}, "masks.file"),
        ({"masks.trained": False, "regime": "random"}, "masks.trained"),
        ({"illumination.waist": 2.0}, "illumination.waist"),
        ({"illumination.kind": "intensity"}, "illumination.file: goes with"),
        ({"illumination.file": "x.npy"}, "illumination.file"),
        ({"masks.start": "flat", "masks.snapshots": 2}, "masks.start: 2 masks that start alike"),
        ({"jitter.waist": 0.1}, "jitter.waist"),
        ({"aberrations.zernike": (0.8,)}, "aberrations.zernike: expected more than the first"),
        ({"aberrations.diameter": 1.0}, "aberrations.diameter: is read only with"),
    ],
)
def test_options_that_do_not_go_together_are_refused(changes, says):
    config = tiny_config()
    for path, value in changes.items():
        section, _, name = path.rpartition(".")
        setattr(getattr(config, section) if section else config, name, value)
    assert rejection(checks.validate, config).startswith(says)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.zeros((2, 32, 32), np.float32), "masks.file: expected 1 mask(s) of 32 x 32"),
        (np.zeros((1, 16, 16), np.float32), "masks.file: expected 1 mask(s) of 32 x 32"),
        (np.zeros((1, 32, 32), np.uint8), "masks.file: '"),
        (np.full((1, 32, 32), np.nan, np.float32), "masks.file: expected finite"),
        (None, "masks.file: expected a file, got no file"),
    ],
)
def test_masks_that_cannot_be_used_are_refused_and_nothing_is_written(tmp_path, values, says):
    config = tiny_config()
    config.data.size = 32
    if values is not None:
        np.save(tmp_path / "mask.npy", values)
    config.masks.start, config.masks.file = "file", str(tmp_path / "mask.npy")
    assert rejection(loop.train, config, tmp_path / "run").startswith(says)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("waist", [0.6, 0.4])
def test_the_spectral_estimate_is_of_the_object_not_of_the_beam(waist):
    size = 32
    camera = Camera(size=size, beam=beam(size, kind="gaussian", waist=waist))
    even, found = Camera(size=size), {}
    rng = np.random.default_rng(1)
    scenes = jnp.asarray(oracles.smooth_images(rng, 4, size, size, 3.0)[..., None], jnp.float32)
    drawn = jnp.asarray(rng.uniform(0, 2 * np.pi, (1, size, size)), jnp.float32)
    start = jnp.asarray(oracles.random_complex(rng, (size, size)), jnp.complex64)
    kernel = jnp.asarray(gaussian_kernel())
    for name, one in {"even": even, "beam": camera}.items():
        optics = one.optics(drawn)
        shots = one.measure(optics, scenes, jax.random.key(0))
        estimates, _ = spectral_estimates(shots, optics, kernel, start, START)
        pairs = zip(np.asarray(phasor(estimates)), np.asarray(one.encode(scenes)), strict=True)
        found[name] = np.mean([oracles.correlation(*pair) for pair in pairs])
    assert found["beam"] > found["even"] - 0.05


def test_tolerance_takes_errors_of_a_beam_only_from_runs_that_have_one(tmp_path):
    request = Request(errors=("beam",), spread=("waist=0.1", "wavefront=0.2"))
    check_request(request)
    assert request.spreads["waist"] == 0.1
    config = tiny_config()
    run = untrained_run(config, tmp_path)
    assert rejection(require_beam, run, request).startswith("--errors: beam is of a Gaussian beam")
    only = Request(errors=("shift",), spread=("waist=0.1",))
    assert rejection(require_beam, run, only).startswith("--spread: waist is of a Gaussian beam")
    config.illumination.kind = "gaussian"
    require_beam(run, request)


def test_solvers_take_a_beam_as_complex_masks():
    lit = Camera(size=SIZE, beam=beam(kind="gaussian", waist=0.7, zernike=(0.0, 0.0, 0.0, 1.0)))
    optics = lit.optics(phases(4))
    shots = np.asarray(lit.measure(optics, images(), jax.random.key(0)))
    found, misfits = kdpr.solve(500 * shots, optics.masks, steps=300)
    truth = np.asarray(lit.encode(images())[0])
    assert oracles.correlation(found[0], truth) > 0.999 and misfits[0] < 0.01
    ignorant, _ = kdpr.solve(500 * shots, phases(4), steps=300)
    assert oracles.correlation(ignorant[0], truth) < 0.9
