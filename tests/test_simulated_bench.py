"""The sensor of a simulated bench, against electrons counted one by one."""

import dataclasses
import json

import numpy as np
import pytest
import tifffile
from benches import true_setup
from helpers import rejection, tiny_config, untrained_run

from jax_kdpr.lab.frames.geometry import default_geometry, make_window
from jax_kdpr.lab.frames.measured import blank_image, measure_frames
from jax_kdpr.lab.frames.reading import list_frames, read_mean, read_moments
from jax_kdpr.lab.frames.simulated_bench import (
    Bench,
    Exposure,
    Sensor,
    check_bench,
    expose,
    find_exposure,
    make_bench,
    write_bench,
)

SHAPE, ENERGY, OFFSET, ELECTRONS = (40, 40), 256.0, 64.0, 1e4
A_COUNT = ELECTRONS / (4095 - OFFSET)  # electrons
DARK = 30.0
RNG = np.random.default_rng(0)
FLAT = RNG.uniform(0.8, 1.2, SHAPE)
SENSOR = Sensor(FLAT, np.full(SHAPE, OFFSET), np.ones(SHAPE))
GEOMETRY = default_geometry(make_window(SHAPE, None, 1), (16, 16), 2.0)
LIGHT = RNG.uniform(0.5, 1.5, (1, *SHAPE)) * ENERGY / np.prod(SHAPE)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A camera of 12 bits that looks at the pattern of an empty mask: all light in its middle."""
    run = untrained_run(tiny_config(masks__snapshots=1), tmp_path_factory.mktemp("run"))
    params, state = run.variables
    run = dataclasses.replace(run, variables=(params | {"phases": 0 * run.phases}, state))
    ideal = {"bits": 12, "offset": OFFSET, "read_noise": 0.0, "vignetting": 0.0}
    return run, make_bench(run, scale=3.0)._replace(**ideal, hot=0, dead=0)


@pytest.fixture
def written(bench, tmp_path):
    """written(**camera) -> the folder of such a bench without an object, and its camera."""

    def write(**changes):
        run, camera = bench[0], bench[1]._replace(**changes)
        write_bench(tmp_path / "b", run, blank_image(run.camera)[None], camera, seed=0)
        return tmp_path / "b", camera

    return write


@pytest.mark.parametrize("full_well", [ELECTRONS, 0.0])
def test_every_frame_has_the_noise_of_its_own_electrons(bench, full_well):
    camera = bench[1]._replace(photons=4e5, full_well=full_well, dark=DARK)
    exposure = find_exposure([LIGHT], camera, SENSOR, energy=ENERGY)
    a_count = 1 / exposure.electron
    if full_well:
        assert a_count == pytest.approx(A_COUNT)
    # As a scene of modulus 1, and as one of amplitude 0.5, which has a quarter of its light.
    for light in (LIGHT[0], LIGHT[0] / 4):
        frames = np.array([expose(light, exposure, camera, SENSOR, RNG) for _ in range(400)])
        electrons = (frames - OFFSET) * a_count
        photons = 4e5 * light / ENERGY * FLAT
        np.testing.assert_allclose(electrons.mean(), photons.mean() + DARK, rtol=0.01)
        np.testing.assert_allclose(electrons.mean(axis=0), photons + DARK, rtol=0.05)
        spread = photons + DARK + a_count**2 / 12  # of Poisson, and of rounding
        np.testing.assert_allclose(
            np.var(frames, axis=0).mean() * a_count**2, spread.mean(), rtol=0.02
        )


@pytest.mark.parametrize(
    "changes",
    [
        *[{}, {"offset": 1700.0}, {"bits": 8, "offset": 100.0}],
        *[{"full_well": 1e4, "dark": 4900.0}, {"photons": 1e5, "dark": 1000.0}],
    ],
    ids=str,
)
def test_no_frame_is_clipped_and_the_flat_neither(written, changes):
    folder, camera = written(**changes, vignetting=0.2)
    frame, flat, dark = (
        read_mean(str(folder / name)) / (2**camera.bits - 1)
        for name in ("frames/*.tif", "flat.tif", "dark.tif")
    )
    assert frame.max() < 0.99 and flat.max() < 0.99
    assert 0.8 * (1 - dark.mean()) < frame.max() - dark.mean()  # the longest that fits
    assert flat.mean() - dark.mean() == pytest.approx(0.6 * (1 - dark.mean()), rel=0.02)


def test_an_object_without_light_does_not_set_the_exposure():
    camera = Bench(GEOMETRY, SHAPE)
    nothing = np.zeros((1, *SHAPE))
    found = [find_exposure(x, camera, SENSOR, energy=ENERGY) for x in ([LIGHT], [LIGHT, nothing])]
    assert found[0] == found[1]
    few = nothing.copy()
    few[0, 0, :5] = 1.0
    lost = camera._replace(saturated=0.4)
    assert "--saturated" in rejection(find_exposure, [few], lost, SENSOR, energy=ENERGY)


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"offset": 2048.0}, "--offset"),
        ({"bits": 8, "left_justified": True}, "--left_justified"),
        ({"dark": 1.0}, "--dark"),
        ({"dark": 500.0, "full_well": 1000.0}, "--dark"),
        ({"saturated": 0.1, "full_well": 1000.0, "photons": 1e5}, "--saturated"),
    ],
    ids=str,
)
def test_a_camera_that_cannot_be_is_refused(changes, flag):
    assert flag in rejection(check_bench, Bench(GEOMETRY, SHAPE, **changes))


def test_dark_frames_hold_the_dark_electrons(written):
    folder, camera = written(full_well=ELECTRONS, dark=DARK)
    dark = read_moments(str(folder / "dark.tif"))
    assert np.mean(dark.mean - OFFSET) * A_COUNT == pytest.approx(DARK, rel=0.01)
    spread = (dark.spread or 0.0) * A_COUNT
    assert spread**2 == pytest.approx(DARK + A_COUNT**2 / 12, rel=0.2)
    quiet = expose(np.zeros(SHAPE), Exposure(1.0, 0.0), camera._replace(dark=0.0), SENSOR, RNG)
    assert np.all(quiet == OFFSET)


def test_photons_are_the_counts_of_results_times_electrons_a_count(bench, written):
    """Also where the mask sends all to the middle, which its pixels' envelope leaves whole."""
    folder, _ = written(photons=1e5, full_well=1e6, bits=16)
    setup = true_setup(bench[0], folder)._replace(sampling="area")
    frames = list_frames(str(folder / "frames" / "*.tif"))
    (measured,) = measure_frames([tuple(frames)], setup, bench[0])
    a_count = 1e6 / (2**16 - 1 - OFFSET)
    assert measured.counts[0] * a_count == pytest.approx(1e5, rel=0.03)


def test_a_full_well_without_photons_gives_the_shot_noise_of_the_exposure(written, capsys):
    folder, _ = written(full_well=ELECTRONS)
    assert "photons of a frame: " in capsys.readouterr().out
    # Two frames of one light: without an object, and of an object that changes nothing.
    names = ("calibration/blank_00.tif", "frames/object_00000_00.tif")
    one, other = ((tifffile.imread(folder / name) - OFFSET) * A_COUNT for name in names)
    electrons = (one + other) / 2
    spread = (one - other) ** 2 / 2 / (electrons + A_COUNT**2 / 12)  # over Poisson's and rounding
    bright = electrons > 10
    assert bright.sum() > 200 and spread[bright].mean() == pytest.approx(1.0, rel=0.2)
    truth = json.loads((folder / "truth.json").read_text())
    assert truth["photons"] * truth["counts_per_electron"] == pytest.approx(
        truth["counts_per_unit"] * 16 * 16, rel=1e-6
    )
