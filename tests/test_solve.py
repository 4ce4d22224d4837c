"""The solvers on a trained run: `solve`, and the rows and the refinement of `evaluate`."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from commands import refusal, run
from helpers import rejection
from PIL import Image

from jax_kdpr import evaluate
from jax_kdpr.core.options import changed
from jax_kdpr.evaluation import solvers as solving
from jax_kdpr.evaluation.solvers import Plan
from jax_kdpr.optics.camera import Camera
from jax_kdpr.optics.cdp import Optics
from jax_kdpr.optics.masks import init_phases
from jax_kdpr.optics.objects import SceneOptions, scene_field
from jax_kdpr.recovery.batched_solvers import make_solve
from jax_kdpr.recovery.refinement import Refinement, make_refine
from jax_kdpr.recovery.solvers import amplitude_misfit
from jax_kdpr.runs.run import load_run

IMAGES = 4


@pytest.fixture(scope="module")
def teacher(recorded):
    """A trained run of three snapshots."""
    return recorded / "teacher"


@pytest.fixture
def parse(teacher, tmp_path):
    """Sets the flags of `evaluate` on a copy; afterwards they are at their defaults again."""
    workdir = shutil.copytree(teacher, tmp_path / "teacher")
    flags = evaluate.flags.FLAGS
    mine = flags.get_key_flags_for_module(evaluate.__name__)
    for flag in mine:
        flag.unparse()
    yield lambda *options: flags(["evaluate", f"--workdir={workdir}", *options]) and workdir
    for flag in mine:
        flag.unparse()
    flags(["evaluate"])


@pytest.fixture(scope="module")
def subject(teacher):
    return load_run(teacher, images=IMAGES)


@pytest.fixture(scope="module")
def truth(subject):
    """Images [n h w] and CDPs of the first test scenes, and the trained system."""
    images = subject.scenes(IMAGES)
    output, _ = jax.jit(subject.system.apply)(*subject.variables, images, jax.random.key(0))
    return images, output, subject.variables[0]["phases"]


def test_a_few_steps_from_the_spectral_estimate_equal_dense_matrices(subject, truth):
    images, output, phases = truth
    plan = Plan(solver=("raar",), images=IMAGES, steps=3, start="spectral")
    report = solving.solve_images(subject, plan)
    assert list(report.answers) == ["start", "raar", "network"]
    matrix = oracles.cdp_matrix(np.asarray(phases, float))
    for number in range(IMAGES):
        x = np.exp(1j * np.pi * np.asarray(images[number, ..., 0], float))
        found = oracles.solver_steps(
            "raar",
            matrix,
            oracles.intensity(x, np.asarray(phases, float)),
            np.asarray(output.estimate[number]).ravel(),
            scene="phase",
            steps=3,
        )
        found = found.reshape(16, 16) * np.exp(1j * np.angle(np.vdot(found, x)))
        read = np.clip(np.angle(found * -1j) / np.pi + 0.5, 0, 1)
        actual = report.answers["raar"].solved.image[number, ..., 0]
        np.testing.assert_allclose(actual, read, atol=5e-3)


@pytest.mark.slow
def test_solvers_beat_the_network_where_the_data_are_enough(subject, truth):
    """Three shots without noise: RAAR finds the very object, as 100 dB and no misfit show."""
    plan = Plan(solver=("raar",), images=IMAGES, steps=300, start="spectral")
    results = solving.summarise(solving.solve_images(subject, plan))
    assert results["raar"]["psnr"] > 60 and results["raar"]["misfit"] < 1e-3
    assert results["raar"]["seconds_per_image"] > 0
    assert results["raar"]["global_phase"] == "taken from the truth"
    images, output, phases = truth
    misfits = [
        amplitude_misfit(scene_field(image, SceneOptions(kind="phase")), y, Optics(phases))
        for image, y in zip(output.image, output.intensity, strict=True)
    ]
    np.testing.assert_allclose(results["network"]["misfit"], np.mean(misfits), rtol=1e-4)
    pairs = zip(np.asarray(output.image), np.asarray(images), strict=True)
    expected = np.mean([oracles.psnr(*pair) for pair in pairs])
    np.testing.assert_allclose(results["network"]["psnr"], expected, rtol=1e-4)
    assert results["network"]["global_phase"] == "the network's"


@pytest.mark.slow
def test_from_the_network_its_global_phase_stays(subject, truth):
    plan = Plan(solver=("error_reduction",), images=IMAGES, steps=2, start="network")
    report = solving.solve_images(subject, plan)
    assert list(report.answers) == ["error_reduction", "network"]
    refine = make_refine(subject.camera, Refinement(2))
    output = truth[1]
    expected = refine(subject.optics, output.image, output.intensity)
    np.testing.assert_allclose(report.answers["error_reduction"].solved.image, expected, atol=1e-3)


def test_restarts_keep_the_smallest_misfit(subject):
    plan = Plan(solver=("taf",), images=IMAGES, steps=10, start="random")
    one, three = (
        solving.solve_images(subject, changed(plan, restarts=restarts)).answers["taf"]
        for restarts in (1, 3)
    )
    assert np.all(three.solved.misfit <= one.solved.misfit + 1e-6)
    assert np.any(three.solved.misfit < one.solved.misfit - 1e-4)


@pytest.mark.slow
def test_random_starts_do_not_depend_on_the_batch(teacher):
    plan = Plan(solver=("taf",), images=4, steps=2, start="random")
    wide, narrow = (solving.solve_images(load_run(teacher, images=size), plan) for size in (4, 2))
    one, other = (report.answers["taf"].solved.image for report in (wide, narrow))
    np.testing.assert_allclose(one, other, atol=1e-3)


def test_a_support_is_dark_outside_and_helps_inside():
    """Amplitude objects in a quarter of the window, from one shot."""
    inside = np.zeros((16, 16), bool)
    inside[4:12, 4:12] = True
    camera = Camera(size=16, scene=SceneOptions(kind="amplitude"))
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 16, 16, 1)) * inside[..., None])
    params = {"phases": init_phases(jax.random.key(0), snapshots=1, height=16, width=16)}
    y = camera.measure(camera.optics(params["phases"]), images, jax.random.key(1))
    starts = jnp.ones_like(camera.encode(images))
    error = {}
    for name, support in (("with", inside), ("without", None)):
        solve = make_solve(camera, solver="raar", steps=100, support=support)
        solved = solve(camera.optics(params["phases"]), starts, y, images)
        error[name] = float(jnp.mean(jnp.square(solved.image - images)))
        assert np.all(np.asarray(solved.image)[:, ~inside] == 0) == (name == "with")
    assert error["with"] < 0.5 * error["without"]


@pytest.mark.slow
def test_the_command_writes_table_numbers_and_figure(teacher, tmp_path):
    output = tmp_path / "out"
    options = ["--solver=raar,accelerated", "--steps=20", "--tv=0.01", f"--output={output}"]
    done = run("solve", f"--workdir={teacher}", "--images=4", *options)
    assert done.returncode == 0, done.stderr
    table = (output / "solve.md").read_text()
    assert table.strip() in done.stdout
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
    assert [row.split(":")[0] for row in rows[2:]] == ["none", "raar", "accelerated", "none"]
    record = json.loads((output / "solve.json").read_text())
    assert set(record["results"]) == {"start", "raar", "accelerated", "network"}
    assert (record["steps"], record["tv"], record["images"]) == (20, 0.01, 4)
    with Image.open(output / "solve.png") as figure:
        assert np.asarray(figure.convert("L")).std() > 20


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        (["--solver="], "--solver"),
        (["--solver=raar,newton"], "--solver"),
        (["--solver=raar,raar"], "--solver"),
        (["--restarts=2"], "--restarts"),
        (["--tv=0.1"], "--tv"),
        (["--beta=0.5", "--solver=taf"], "--beta"),
    ],
)
def test_plans_that_make_no_sense_are_refused(teacher, options, flag):
    assert refusal("solve", f"--workdir={teacher}", *options).startswith(f"{flag}: ")


@pytest.mark.parametrize(
    "options",
    [
        ["--refine_with=hio"],
        ["--refine_tv=0.1", "--refine=5", "--refine_with=hio"],
        ["--refine_with=accelerated", "--refine_tv=0.1"],
    ],
)
def test_evaluate_refuses_options_that_nothing_reads(parse, options):
    parse(*options)
    assert rejection(evaluate.main, []).startswith(options[0].split("=")[0])
