"""What is said of a design, where theory says what it must be; the command line as a process."""

import json
from pathlib import Path
from unittest.mock import Mock

import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from commands import call, refusal, run

from jax_kdpr.evaluation.uniqueness import information
from jax_kdpr.evaluation.uniqueness import masks as mask_analysis
from jax_kdpr.evaluation.uniqueness.masks import Design, make_design
from jax_kdpr.evaluation.uniqueness.prior import fit_prior
from jax_kdpr.evaluation.uniqueness.report import report
from jax_kdpr.optics.cdp import Optics
from jax_kdpr.optics.objects import SceneOptions

SIZE = 12
RNG = np.random.default_rng(0)
TRAIN = oracles.smooth_images(RNG, 400, SIZE, SIZE, 2.0)
IMAGES = oracles.smooth_images(RNG, 3, SIZE, SIZE, 2.0)[..., None]
PRIOR = fit_prior(TRAIN)


QUICKSTART = Path(__file__).parents[1] / "configs" / "quickstart" / "e2e.py"
TINY = ("size=16", "train_images=64", "test_images=16")


def design_of(phases: np.ndarray, oversample: int = 1, kind: str = "phase") -> Design:
    optics = Optics(jnp.asarray(phases))
    return make_design(optics, oversample=oversample, scene=SceneOptions(kind=kind))


def random_phases(k: int) -> np.ndarray:
    return np.random.default_rng(5).uniform(0, 2 * np.pi, (k, SIZE, SIZE))


def random_design(k: int, oversample: int = 1) -> Design:
    return design_of(random_phases(k), oversample)


def judged(design: Design) -> dict:
    images = jnp.asarray(IMAGES)
    unit = mask_analysis.own_distance(PRIOR, images)
    return mask_analysis.false_objects(design, images, prior=PRIOR, unit=unit)


@pytest.mark.usefixtures("x64")
def test_false_objects_are_far_from_the_training_images_but_behind_a_flat_mask():
    """Which shifts them: the images are periodic but for blur at the edges of one axis."""
    found = judged(random_design(1))
    for kind in ("twin", "mirror", "worst shift"):
        assert found[kind]["misfit"] < 1e-12
        assert found[kind]["prior_distance"] > 3
        assert found[kind]["psnr"] < 15
    assert found["worst shift"]["fitting_share"] == 1
    flat = design_of(np.zeros((1, SIZE, SIZE)))
    assert judged(flat)["worst shift"]["prior_distance"] < 2
    more = judged(random_design(3))["worst shift"]
    assert more["misfit"] > 0.1 and more["fitting_share"] == 0


@pytest.mark.usefixtures("x64")
def test_psnr_and_distance_are_those_of_the_images():
    """The twin behind a flat mask: e^{-j pi img(-r)}, read at the phase nearest to the truth."""
    flat = design_of(np.zeros((1, SIZE, SIZE)))
    image = IMAGES[0, ..., 0]
    every = mask_analysis.false_objects(flat, jnp.asarray(IMAGES[:1]), prior=PRIOR, unit=1.0)
    found = every["twin"]
    twin = np.exp(-1j * np.pi * np.roll(image[::-1, ::-1], (1, 1), (0, 1)))

    def read(field):
        return np.clip(np.angle(field * -1j) / np.pi + 0.5, 0, 1)

    aligned = read(twin * np.exp(1j * np.angle(np.vdot(twin, np.exp(1j * np.pi * image)))))
    np.testing.assert_allclose(found["psnr"], oracles.psnr(aligned, image), rtol=1e-6)
    distances = []
    for turn in range(16):
        off = read(twin * np.exp(2j * np.pi * turn / 16)).ravel() - PRIOR.mean
        left = off - PRIOR.subspace @ (PRIOR.subspace.T @ off)
        distances.append(np.sqrt(np.mean(left**2)))
    np.testing.assert_allclose(found["prior_distance"], min(distances), rtol=1e-4)


def all_bounds(design: Design, read_noise: float = 0.0) -> list[dict]:
    light = {"photons": (1e3, 1e5), "read_noise": read_noise}
    return list(mask_analysis.bounds(design, jnp.asarray(IMAGES), prior=PRIOR, **light))


@pytest.mark.usefixtures("x64")
def test_bounds_follow_from_the_light():
    four = all_bounds(random_design(4))
    # Without a prior a hundred times the light is a tenth of the error, 20 dB.
    np.testing.assert_allclose(four[1]["cramer_rao"]["psnr"] - four[0]["cramer_rao"]["psnr"], 20)
    for bound in four:
        each = bound["cramer_rao"]
        np.testing.assert_allclose(each["radians"], np.pi * each["rms"])
        np.testing.assert_allclose(each["psnr"], -20 * np.log10(each["rms"]))
        assert bound["bayesian"]["rms"] < each["rms"]
    noisy, one = all_bounds(random_design(4), read_noise=10.0), all_bounds(random_design(1))
    for bound, worse, single in zip(four, noisy, one, strict=True):
        for kind in ("cramer_rao", "bayesian"):
            assert worse[kind]["rms"] > 1.05 * bound[kind]["rms"]
            assert single[kind]["rms"] > 1.5 * bound[kind]["rms"]
    dark = np.sqrt(np.mean(np.var(TRAIN, axis=0)))
    assert one[0]["bayesian"]["rms"] < dark  # what the prior alone knows


@pytest.mark.usefixtures("x64")
def test_large_scenes_get_the_same_numbers_without_matrices(monkeypatch):
    design, images = random_design(4), jnp.asarray(IMAGES)
    dense = mask_analysis.conditioning(design, images), all_bounds(design)
    monkeypatch.setattr(information, "DENSE", 10)
    probed = mask_analysis.conditioning(design, images), all_bounds(design)
    assert "spectrum" in dense[0] and "spectrum" not in probed[0]
    np.testing.assert_allclose(probed[0]["largest"], dense[0]["largest"], rtol=1e-3)
    np.testing.assert_allclose(probed[0]["smallest"], dense[0]["smallest"], rtol=2e-2)
    for matrix, estimate in zip(dense[1], probed[1], strict=True):
        for kind in ("cramer_rao", "bayesian"):
            error = estimate[kind]["probe_error"]
            assert 0 < error < 0.2
            ratio = (estimate[kind]["rms"] / matrix[kind]["rms"]) ** 2
            assert abs(ratio - 1) < 4 * error + 0.05  # the median scene is another one at times


@pytest.mark.usefixtures("x64")
def test_a_report_says_what_one_shot_of_a_complex_object_cannot_hold():
    """144 equations for 288 unknowns, the global phase among them."""
    design = design_of(random_phases(1), kind="complex")
    images = jnp.asarray(np.concatenate([IMAGES, IMAGES[::-1]], axis=-1))
    jacobian = mask_analysis.conditioning(design, images)
    assert jacobian["null"] == 143 and jacobian["condition"] == np.inf
    bounds = mask_analysis.bounds(design, images, prior=PRIOR, photons=(1e4,), read_noise=0.0)
    found = {
        "snapshots": 1,
        "oversample": 1,
        "false_objects": mask_analysis.false_objects(design, images, prior=PRIOR, unit=1.0),
        "jacobian": jacobian,
        "bounds": list(bounds),
    }
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in report({"mine": found}, scenes=3).splitlines()
        if line.startswith("| ")
    ]
    kinds = [line[1] for line in lines]
    assert kinds[1:4] == ["twin", "mirror", "worst shift"]
    assert lines[3][-1] == "100%"  # of the shifts fit one shot
    assert lines[5][5:7] == ["inf", "143"]
    assert lines[7] == ["mine", "no prior", "singular"]
    assert lines[8][:2] == ["mine", "prior"] and float(lines[8][2].split(" / ")[0]) > 10


@pytest.fixture
def masks(tmp_path) -> str:
    phases = np.random.default_rng(0).uniform(0, 2 * np.pi, (16, 16))
    np.save(tmp_path / "mine.npy", phases)
    np.save(tmp_path / "wrong.npy", phases[:8])
    return f"--masks={tmp_path}"


@pytest.mark.slow
def test_command_line(designed, masks, tmp_path):
    out = tmp_path / "out"
    options = ["--scenes=2", "--photons=1e3,1e4", f"--output={out}", "--random"]
    done = run("ambiguity", f"--workdir={designed}", f"{masks}/mine.npy", *options)
    assert done.returncode == 0, done.stderr
    assert (out / "ambiguity.md").read_text().strip() in done.stdout
    assert (out / "ambiguity.png").stat().st_size > 10_000
    designs = json.loads((out / "ambiguity.json").read_text())["designs"]
    assert list(designs) == ["teacher", "mine.npy", "random phases"]
    assert [found["snapshots"] for found in designs.values()] == [3, 1, 3]
    assert designs["mine.npy"]["false_objects"]["twin"]["misfit"] < 1e-12
    assert designs["teacher"]["false_objects"]["twin"]["misfit"] > 0.05
    assert [bound["photons"] for bound in designs["teacher"]["bounds"]] == [1e3, 1e4]


@pytest.mark.parametrize(
    ("arguments", "flags"),
    [
        (["--workdir={designed}", "{masks}/wrong.npy"], "--masks"),
        (["--random", "--photons=many"], "--photons"),
        ([], "--workdir, --masks"),
        (["{masks}/mine.npy"], "--config"),
    ],
)
def test_bad_command_lines_are_one_line(designed, masks, tmp_path, arguments, flags):
    given = [argument.format(designed=designed, masks=masks) for argument in arguments]
    said = refusal("ambiguity", *given, f"--output={tmp_path / 'none'}")
    assert said.startswith(f"{flags}: ") and not (tmp_path / "none").exists()


@pytest.mark.slow
def test_an_interruption_keeps_the_parts_that_are_done(tmp_path, monkeypatch):
    arguments = [f"--config={QUICKSTART}", *[f"--config.data.{option}" for option in TINY]]
    arguments += ["--random", "--scenes=1", "--photons=1e4", f"--output={tmp_path / 'out'}"]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(mask_analysis, "conditioning", Mock(side_effect=KeyboardInterrupt))
        call("ambiguity", *arguments)
    text = (tmp_path / "out" / "ambiguity.md").read_text()
    assert "Not finished yet" in text and "worst shift" in text
    found = json.loads((tmp_path / "out" / "ambiguity.json").read_text())
    assert not found["finished"] and "jacobian" not in found["designs"]["random phases"]
    call("ambiguity", *arguments)
    again = json.loads((tmp_path / "out" / "ambiguity.json").read_text())
    assert again["finished"] and "jacobian" in again["designs"]["random phases"]
