"""Masks from measured plates: against finer sampling, and the light that such a plate makes."""

import json

import commands
import numpy as np
import oracles
import pytest
import tifffile
from helpers import ROOT, rejection
from PIL import Image
from scipy.ndimage import gaussian_filter

from jax_kdpr.lab.frames.calibration import Calibration, _half_turn, _sign
from jax_kdpr.lab.frames.geometry import Geometry
from jax_kdpr.lab.frames.registration import Registration, register
from jax_kdpr.lab.masks.plate import Region, doubts, mask_of_map, phases_added
from jax_kdpr.optics.beam import AberrationOptions, IlluminationOptions, read_beam
from jax_kdpr.optics.mask_files.format import MaskFormat

TURN = 2 * np.pi
GLASS = MaskFormat(format="height", wavelength=532e-9, index=1.457)
ROUGH = np.random.default_rng(0).standard_normal((96, 120))
SMOOTH = 9.0 * gaussian_filter(ROUGH, 8) / gaussian_filter(ROUGH, 8).std() / 6  # radians


def off(one, other):
    """Largest distance of two masks on the circle, but for a constant."""
    difference = np.exp(1j * (one - other))
    return np.abs(np.angle(difference / difference.mean())).max()


@pytest.mark.parametrize("ratio", [2.5, 3.0, 0.8])
@pytest.mark.parametrize("centre", [(47.5, 59.5), (40.3, 66.0)])
def test_a_mask_pixel_is_the_mean_of_the_map_over_its_area(ratio, centre):
    plate = mask_of_map(SMOOTH, Region(16, ratio, centre), level=False)
    fine = np.kron(SMOOTH, np.ones((40, 40)))
    first = [round(40 * (middle + 0.5 - 8 * ratio)) for middle in centre]
    side = round(40 * ratio)
    part = fine[first[0] : first[0] + 16 * side, first[1] : first[1] + 16 * side]
    means = part.reshape(16, side, 16, side).mean(axis=(1, 3))
    np.testing.assert_allclose(np.exp(-1j * plate.phases), np.exp(1j * means), atol=1e-9)
    within = part - np.kron(means, np.ones((side, side)))
    assert plate.rough == pytest.approx(within.std(), rel=1e-6, abs=1e-6)
    assert plate.span == pytest.approx(np.ptp(means))


def test_heights_delay_light_as_glass_does_and_a_mirror_advances_it():
    heights = np.array([[0.0, 100.0]])
    glass = phases_added(heights, "nm", GLASS)
    np.testing.assert_allclose(glass[0, 1], TURN * 0.457 * 100 / 532)
    np.testing.assert_allclose(phases_added(heights / 1e9, "m", GLASS), glass)
    mirror = MaskFormat(format="height", wavelength=532e-9, reflection=True)
    np.testing.assert_allclose(phases_added(heights, "nm", mirror)[0, 1], -2 * TURN * 100 / 532)
    np.testing.assert_allclose(phases_added(heights, "waves", MaskFormat())[0, 1], 100 * TURN)
    assert "--wavelength" in rejection(phases_added, heights, "um", MaskFormat(format="height"))


def test_gaps_and_tilt_do_not_matter():
    region = Region(16, 5.0, (47.5, 59.5))
    wanted = mask_of_map(SMOOTH, region, level=True)
    y, x = np.indices(SMOOTH.shape)
    holes = np.random.default_rng(1).random(SMOOTH.shape) < 0.03
    found = mask_of_map(np.where(holes, np.nan, SMOOTH + 0.2 * y - 0.1 * x), region, level=True)
    assert off(found.phases, wanted.phases) < 0.1 and 0.01 < found.filled < 0.05
    assert found.tilt == pytest.approx(np.hypot(0.2, 0.1) * 80, rel=0.2)
    for share, refused in ((0.08, False), (0.12, True)):
        holes = np.arange(SMOOTH.size).reshape(SMOOTH.shape) % 100 < 100 * share
        gaps = np.where(holes, np.nan, SMOOTH)
        if refused:
            assert "at most 10%" in rejection(mask_of_map, gaps, region, level=True)
        else:
            mask_of_map(gaps, region, level=True)


def test_what_is_likely_wrong_with_a_map_is_told():
    region = Region(16, 5.0, (47.5, 59.5))
    assert not doubts(mask_of_map(SMOOTH, region, level=True))
    for factor in (1e-3, 1e3):
        assert "check --unit" in " ".join(doubts(mask_of_map(factor * SMOOTH, region, level=True)))
    (said,) = doubts(mask_of_map(np.mod(2 * SMOOTH, TURN), region, level=True))
    assert "unwrap it first" in said
    (said,) = doubts(mask_of_map(3 * ROUGH, region, level=True))
    assert "lost to the model" in said


def test_the_pattern_of_the_mask_is_that_of_the_plate():
    """The light is sampled as finely as the map, five times finer than the mask."""
    region = Region(16, 5.0, (47.5, 59.5))
    plate = mask_of_map(SMOOTH, region, level=True)
    light = np.exp(1j * SMOOTH[8:88, 20:100])
    pattern = np.abs(np.fft.fftshift(np.fft.fft2(light, (160, 160))))
    phases = np.asarray(plate.phases, np.float32)

    def likeness(phases):
        """With the pattern where it lies: a tilt has moved it by some samples."""
        model = oracles.intensity(np.ones((16, 16)), phases[None], oversample=2)[0]
        wide = np.zeros((160, 160))
        wide[64:96, 64:96] = np.sqrt(np.fft.fftshift(model))
        product = np.fft.ifft2(np.fft.fft2(pattern) * np.conj(np.fft.fft2(wide))).real
        return product.max() / np.linalg.norm(pattern) / np.linalg.norm(wide)

    # The model's pixels are points: it has no envelope, and light from further out comes round.
    assert likeness(phases) > 0.95 > 0.9 > likeness(-phases)


@pytest.mark.slow
@pytest.mark.parametrize("span", [3.0, 5.0])
def test_a_weak_plate_is_recognised_by_its_frame_and_another_is_not(span):
    """Its pattern has a bright centre, which fits in any orientation and with any weak plate."""

    def plate(seed):
        heights = gaussian_filter(np.random.default_rng(seed).standard_normal((320, 320)), 8)
        return span * heights / np.ptp(heights)

    light = np.abs(np.fft.fft2(np.exp(1j * plate(0)[32:288, 32:288]), (1024, 1024))) ** 2
    frame = np.fft.fftshift(light)[412:612, 412:612]
    frame = np.random.default_rng(1).poisson(1e5 * frame / frame.max()).astype(float)
    found = []
    for seed in range(4):
        phases = mask_of_map(plate(seed), Region(32, 8.0, (159.5, 159.5)), level=False).phases
        model = np.fft.fftshift(oracles.intensity(np.ones((32, 32)), phases[None], 2)[0])
        start, ranges = Geometry(100.0, 100.0, 0.0, 2.0), {"rotation_range": 2.0}
        found.append(register(frame, model, start, scale_range=0.02, **ranges))
    print(found)
    assert found[0].trusted and not any(other.trusted for other in found[1:]), found
    lead = [(1 - one.runner_up**2) / (1 - one.score**2) for one in found]
    assert lead[0] > 2 and max(lead[1:]) < 1.1, lead


def test_the_command_writes_what_masks_file_reads(tmp_path, capfd):
    heights = SMOOTH * 532 / (TURN * 0.457)
    heights[50, 60] = np.nan
    tifffile.imwrite(tmp_path / "plate.tif", heights.astype(np.float32))
    np.savetxt(tmp_path / "plate.csv", heights, delimiter=",")
    lengths = ("--wavelength=532e-9", "--pitch=2e-6", "--mask_pitch=10e-6", "--size=16")
    glass = ("--unit=nm", "--index=1.457", *lengths)
    found = []
    for name in ("tif", "csv"):
        output = tmp_path / f"{name}.npy"
        given = (f"--input={tmp_path}/plate.{name}", f"--output={output}")
        said = commands.call("import_mask", *given, *glass)
        assert said.returncode == 0 and "5 to a mask pixel" in said.stdout, said
        found.append(np.load(output))
        assert "a new .npy file" in commands.refusal("import_mask", *given, *glass)
    assert found[0].shape == (1, 16, 16) and off(*found) < 1e-3
    whole = mask_of_map(SMOOTH, Region(16, 5.0, (47.5, 59.5)), level=True)
    assert off(found[0][0], whole.phases) < 0.05
    given = (f"--input={tmp_path}/plate.tif", f"--output={tmp_path}/no.npy")
    for options, said in (
        (("--unit=nm", *lengths), "--index"),
        (("--unit=rad", "--index=1.4", *lengths), "is of heights, not of rad"),
        (("--unit=nm", "--index=1.457", *lengths[:-1], "--size=24"), "reach from row"),
        (lengths, "--unit: needed"),
        (("--unit=miles", *lengths), "--unit"),
    ):
        assert said in commands.refusal("import_mask", *given, *options)
    assert not (tmp_path / "no.npy").exists()


@pytest.mark.slow
def test_a_plate_of_the_wrong_sign_is_told_by_a_known_object(tmp_path):
    """The light is summed here; the plate advances it where the mask delays it, and the reverse."""
    phases = np.random.default_rng(0).uniform(0, TURN, (16, 16))
    np.save(tmp_path / "mask.npy", phases.astype(np.float32))
    y, x = np.mgrid[-1:1:16j, -1:1:16j]
    thick = (np.hypot(y, x) < 0.8) * 0.5 + (np.hypot(y - 0.3, x + 0.2) < 0.3) * 0.5
    config = [f"--config={ROOT}/configs/plate/e2e.py", "--config.data.size=16"]
    config += ["--config.masks.start=file", f"--config.masks.file={tmp_path}/mask.npy"]
    config += ["--config.masks.trained=False", "--mask_pixels=point"]

    def calibrated(sign, image, *given):
        """Code, calibration and what was said, for a plate of this sign and an object."""
        Image.fromarray(np.uint8(255 * image)).save(tmp_path / "object.png")
        field = np.exp(1j * (np.pi * np.round(255 * image) / 255 - sign * phases))
        light = np.fft.fftshift(np.abs(np.fft.fft2(field, (128, 128))) ** 2)
        light = np.pad(light, 4, mode="wrap")  # points for pixels: the pattern goes on
        frame = np.random.default_rng(1).poisson(2e3 * light / light.mean())
        tifffile.imwrite(tmp_path / "frame.tif", frame.astype(np.uint16))
        output = tmp_path / "calibration.json"
        files = (f"--input={tmp_path}/frame.tif", f"--output={output}", "--scale=4")
        near = ("--rotation_range=2", "--scale_range=0.03")
        said = commands.call("calibrate", *config, *files, *near, *given)
        return said.returncode, json.loads(output.read_text()), said.stdout + said.stderr

    known = f"--object={tmp_path}/object.png"
    code, found, said = calibrated(1, thick, known)
    assert code == 0 and found["trusted"] and found["tells_sign"] and "other sign" in said
    assert found["score"] > 0.97 and found["other_sign"] < 0.8
    code, found, said = calibrated(-1, thick, known)
    assert code == 1 and not found["trusted"] and found["other_sign"] > 0.97 > 0.8 > found["score"]
    assert found["doubt"] in said and "export with the other --sign" in said
    for sign, flip in ((1, "both"), (-1, "none")):  # an empty beam does not tell
        code, found, said = calibrated(sign, 0 * thick)
        assert code == 0 and not found["tells_sign"] and "other_sign" not in found
        assert f"gives this pattern with flip {flip}" in said
    code, found, said = calibrated(1, 0.004 * thick, known)  # nor does a very thin object
    assert code == 0 and not found["tells_sign"] and "that is less even" in said


def test_a_measured_wavefront_becomes_a_file_of_the_beam(tmp_path):
    """In waves, or as optical paths; the light is multiplied by e^{+j W}."""
    waves = SMOOTH / TURN
    sizes = ("--pitch=2e-6", "--mask_pitch=10e-6", "--size=16", "--nolevel", "--wavefront")
    fine = SMOOTH[8:88, 20:100].reshape(16, 5, 16, 5)
    maps = {"waves": (waves, ()), "nm": (532 * waves, ("--wavelength=532e-9",))}
    for unit, (values, needed) in maps.items():
        tifffile.imwrite(tmp_path / f"{unit}.tif", values.astype(np.float32))
        given = (f"--input={tmp_path}/{unit}.tif", f"--unit={unit}", *needed, *sizes)
        output = tmp_path / f"{unit}.npy"
        assert commands.call("import_mask", *given, f"--output={output}").returncode == 0
        np.testing.assert_allclose(np.load(output), fine.mean(axis=(1, 3)), atol=1e-4)
        beam = read_beam(IlluminationOptions(), AberrationOptions(file=str(output)), size=16)
        np.testing.assert_allclose(beam.incident(), np.exp(1j * np.load(output)), atol=1e-5)
    given = (f"--input={tmp_path}/nm.tif", f"--output={tmp_path}/no.npy", "--unit=nm", *sizes)
    assert "--wavelength" in commands.refusal("import_mask", *given)
    index = ("--wavelength=532e-9", "--index=1.5")
    assert "not of a wavefront" in commands.refusal("import_mask", *given, *index)


def test_the_core_of_etched_steps_is_their_height():
    """Steps of 6 x 6 map pixels whose edges a lens has blurred."""
    steps = np.random.default_rng(3).uniform(0, 4, (16, 16))
    seen = gaussian_filter(np.kron(steps, np.ones((6, 6))), 0.6, mode="nearest")
    whole, core = (
        mask_of_map(seen, Region(16, 6.0, (47.5, 47.5), core), level=False) for core in (1.0, 2 / 3)
    )
    fine = np.kron(seen, np.ones((10, 10))).reshape(16, 60, 16, 60)[:, 10:50, :, 10:50]
    np.testing.assert_allclose(core.added, fine.mean(axis=(1, 3)), atol=1e-9)
    errors = [np.std(plate.added - steps) for plate in (core, whole)]
    assert errors[0] < 0.06 and errors[0] < 0.4 * errors[1], errors


def test_what_a_frame_says_of_the_sign_follows_from_both_fits():
    rng = np.random.default_rng(0)
    pattern, other = rng.random((2, 8, 8))
    best = Registration(Geometry(0.0, 0.0), score=0.95, runner_up=0.5)

    def said(negated, score):
        fits = lambda _: Registration(Geometry(0.0, 0.0), score=score, runner_up=0.0)  # noqa: E731
        return _sign(best, pattern, negated, fits)

    assert said(pattern, 0.95) == {"tells_sign": True}  # the mask has no other sign
    assert said(_half_turn(pattern), 0.95) == {"tells_sign": False}
    assert said(other, 0.7) == {"other_sign": 0.7, "tells_sign": True}
    assert said(other, 0.94) == {"other_sign": 0.94, "tells_sign": False}
    wrong = said(other, 0.99)
    assert wrong["trusted"] is False and "0.990 against 0.950" in wrong["doubt"]
    found = Calibration(Geometry(0.0, 0.0), 1.0, 0.95, 0.5, True, "", (8, 8), "")
    assert found.tells_sign is None and not found.has_wrong_sign
    assert found._replace(**wrong).has_wrong_sign
    assert not found._replace(**said(other, 0.7), trusted=False).has_wrong_sign
