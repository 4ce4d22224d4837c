"""A system taught on its bench: objects, light and modulator from all shots, and the new run."""

import dataclasses
import json
import shutil

import commands
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from benches import turned_bench
from helpers import rejection, same

from jax_kdpr.core.options import changed
from jax_kdpr.lab.adaptation import light, objects, record
from jax_kdpr.lab.adaptation.fine_tuning import _shifted, require_folder
from jax_kdpr.lab.frames.calibration import Calibration, masks_digest, write_calibration
from jax_kdpr.lab.frames.correction import References
from jax_kdpr.lab.frames.geometry import default_geometry, make_window
from jax_kdpr.lab.frames.measured import Setup, simulate
from jax_kdpr.lab.frames.reading import list_frames
from jax_kdpr.lab.frames.recovery import make_explain, make_recover
from jax_kdpr.lab.frames.simulated_bench import write_bench
from jax_kdpr.lab.masks.further import draw_further, with_further
from jax_kdpr.optics.mask_files.reading import read_phases
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.checkpoint import SCORE
from jax_kdpr.runs.run import load_run

SHOTS, COUNT = 4, 12
STEPS = ("--steps", 50)
BEAM = {"illumination": {"kind": "gaussian", "waist": 0.6, "centre": (0.1, -0.05)}}


@pytest.fixture(scope="module")
def run(recorded):
    return load_run(recorded / "e2e").on_one_device()


@pytest.fixture(scope="module")
def bench(run, tmp_path_factory):
    """TIFF frames of a bench under a Gaussian beam that the run knows nothing of."""
    folder = tmp_path_factory.mktemp("bench") / "frames"
    seen = with_further(run.with_optics(BEAM), SHOTS)
    camera = turned_bench(seen, photons=1e7, hot=0, dead=0, vignetting=0.0)
    write_bench(folder, seen, run.scenes(COUNT), camera, seed=0)
    found = Calibration(
        camera.geometry,
        **{"counts_per_unit": 1.0, "score": 1.0, "runner_up": 0.0, "trusted": True},
        **{"checkpoint": run.digest, "sensor": run.sensor, "masks": masks_digest(run)},
    )
    write_calibration(folder / "calibration.json", found)
    return folder


def words(run, bench, **changes) -> list[str]:
    """Flags of an adaptation."""
    flags = {
        **{"workdir": run.workdir, "input": bench / "frames/*.tif", "shots": SHOTS},
        **{"dark": bench / "dark.tif", "calibration": bench / "calibration.json"},
    } | changes
    return [f"--{name}={value}" for name, value in flags.items()]


@pytest.mark.slow
def test_from_tiff_files_to_a_run_folder_that_knows_its_bench(run, bench, tmp_path, capsys):
    new = tmp_path / "new"
    given = words(run, bench, blank=bench / "calibration/*.tif", fit="", output=new, steps=100)
    done = commands.call("adapt", *given)
    assert done.returncode == 0, done.stderr
    assert f"{COUNT} objects, from {SHOTS} shots of each" in done.stdout
    # A run folder like any other, of the same masks.
    adapted = load_run(new).on_one_device()
    assert same(adapted.phases, run.phases) and adapted.step > 0
    assert adapted.config.illumination.kind == "amplitude"
    made = json.loads((new / record.RECORD_FILE).read_text())
    assert made["checkpoint"] == run.digest and made["supervision"] == f"{SHOTS} shots"
    assert [row["name"] for row in made["objects"]][:2] == ["object_00000_00", "object_00001_00"]
    assert made["after"]["validation_psnr"] > made["before"]["validation_psnr"] + 0.1
    rows = run_folder.read_metrics(new)
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    # What the shots said the objects were is nearly the truth, and so is the beam.
    truth = run.scenes(COUNT)
    found = jnp.asarray(np.load(new / record.OBJECTS_FILE))
    assert float(jnp.mean(run.camera.score(found, truth).psnr)) > 33
    expected = gaussian(run.camera.size, **BEAM["illumination"])
    beam = adapted.camera.beam
    assert beam is not None
    np.testing.assert_allclose(beam.amplitude(), expected, atol=0.06)
    # It knows other objects of that bench better than the run that it came from does.
    others = run.dataset.validation
    others = jnp.asarray(others[:16], jnp.float32)[..., None]
    shots = run.with_optics(BEAM).system.measure(run.variables[0], others, jax.random.key(0))
    psnr = [
        float(jnp.mean(run.camera.score(make_recover(one)(shots).image, others).psnr))
        for one in (run, adapted)
    ]
    assert psnr[1] > psnr[0] + 0.5, psnr
    # It goes on, or has finished, and is then what it was; asked for something else it does not.
    again = commands.call("adapt", *given)
    assert again.returncode == 0 and "finished already" in again.stdout
    assert load_run(new).digest == adapted.digest
    assert "frames digest" in commands.refusal("adapt", *given, "--hold_back=0.4")
    # What reads frames takes its calibration.
    frames = bench / f"frames/object_*_{0:02d}.tif"
    own = [f"--calibration={new / 'calibration.json'}", f"--dark={bench / 'dark.tif'}"]
    rebuilt = commands.call(
        *("reconstruct", f"--workdir={new}", f"--input={frames}", *own),
        *(f"--output={tmp_path / 'objects'}", "--limit=9"),
    )
    assert rebuilt.returncode == 0, rebuilt.stderr
    # Optics that it holds already are not counted twice.
    given = json.loads((bench / "calibration.json").read_text()) | {"optics": BEAM}
    (tmp_path / "fitted.json").write_text(json.dumps(given))
    again = ("reconstruct", f"--workdir={new}", f"--input={frames}")
    fitted = f"--calibration={tmp_path / 'fitted.json'}"
    assert "holds those of its bench" in commands.refusal(*again, fitted, "--output=x", "--limit=9")


def gaussian(size: int, *, kind: str, waist: float, centre: tuple[float, float]) -> np.ndarray:
    """exp(-r^2 / w^2) about a place, of mean square 1."""
    rows, columns = np.mgrid[:size, :size] / size - (size - 1) / 2 / size
    amplitude = np.exp(-((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2) / waist**2)
    return amplitude / np.sqrt(np.mean(amplitude**2))


@pytest.mark.slow
def test_one_shot_alone_teaches_by_misfit_and_shifts(run, bench, tmp_path):
    given = words(run, bench, input=bench / "frames/*_00.tif", shots=1, output=tmp_path / "new")
    done = commands.call("adapt", *given, *map(str, STEPS))
    assert done.returncode == 0, done.stderr
    rows = run_folder.read_metrics(tmp_path / "new")
    assert all("validation_misfit" in row and "validation_ssim" not in row for row in rows)
    made = json.loads((tmp_path / "new" / record.RECORD_FILE).read_text())
    assert made["supervision"].startswith("none")
    assert made["after"]["validation_misfit"] <= made["before"]["validation_misfit"]
    is_doubtful = made["after"]["validation_misfit"] >= record.DOUBTFUL
    assert ("teach the wrong objects" in done.stderr) == is_doubtful
    assert not (tmp_path / "new" / record.OBJECTS_FILE).exists()


@pytest.mark.parametrize(("misfit", "warns"), [(0.3, True), (0.05, False)])
def test_single_shots_that_are_explained_badly_even_then_are_not_trusted(misfit, warns):
    taught = record.Taught(["one"], jnp.zeros((1, 1, 4, 4)), "", 1, None)
    rows = [{SCORE: 8.0, "validation_misfit": 0.4}, {SCORE: 9.0, "validation_misfit": misfit}]
    assert ("do not use this run" in record.doubt_of_one_shot(taught, rows)) == warns


def test_an_adaptation_that_has_saved_nothing_says_nothing_of_the_bench(run, tmp_path):
    """Stopped while it compiled, for its blank frame was of another bench."""
    workdir = tmp_path / "new"
    workdir.mkdir()
    of = {"data": run.dataset.digest, run_folder.PARENT: run.digest}
    run_folder.record_session(workdir, run.config, of)
    assert require_folder(run, workdir) is None
    (workdir / "metrics.jsonl").write_text("{}\n")
    assert require_folder(run, workdir) is not None


def test_what_cannot_be_an_adaptation_is_refused_in_a_line(run, bench, tmp_path):
    output = tmp_path / "new"

    def refused(**changes) -> str:
        return commands.refusal("adapt", *words(run, bench, output=output, **changes))

    assert "multiple of 5" in refused(shots=5)
    assert "at least 8 objects" in refused(shots=8)
    blank = bench / "calibration/*.tif"
    assert f"expected {SHOTS} frames" in refused(blank=bench / "calibration/blank_00.tif")
    assert "--fit" in refused(fit="gain")
    assert "crosstalk, gain" in refused(blank=blank, fit="gamma")
    assert "alone do not determine" in refused(shots=1, blank=blank)
    assert "expected 3 further mask(s)" in refused(masks=write_phases(run, 2, tmp_path / "2.npy"))
    # Further masks that were not the ones shown: misfit tells.
    other = write_phases(run, SHOTS - 1, tmp_path / "other.npy")
    assert "no light explains" in refused(masks=other, blank=blank, fit="")
    assert "no object explains" in refused(masks=other)
    for changes, said in (
        ({"masks": "0" * 64}, "others (00000"),
        ({"trusted": False}, "give --blank"),
    ):
        path = tmp_path / "calibration.json"
        record_of = json.loads((bench / "calibration.json").read_text())
        path.write_text(json.dumps(record_of | changes))
        assert said in refused(calibration=path)
    assert not output.exists()
    output.mkdir()
    (output / "notes.txt").touch()
    assert "neither empty" in refused()
    shutil.copy(run.workdir / "run.json", output / "run.json")
    assert "no adaptation of this run" in refused()


def write_phases(run, count, path):
    size = run.camera.size
    np.save(path, np.random.default_rng(1).uniform(0, 6, (count, size, size)).astype(np.float32))
    return path


def test_further_masks_are_always_the_same_and_those_of_the_exported_files(run, tmp_path):
    few, many = draw_further(run, 2), draw_further(run, 5)
    assert same(few, many[:2]) and len(np.unique(np.asarray(many).round(4))) > 1000
    commands.call("export_mask", f"--workdir={run.workdir}", "--teacher=3", "--format=npy",
                 f"--output={tmp_path}")  # fmt: skip
    written = [read_phases("", str(tmp_path / f"phases-{k}.npy"))[0] for k in range(3)]
    expected = np.concatenate([run.phases, few])
    np.testing.assert_allclose(np.exp(1j * np.stack(written)), np.exp(1j * expected), atol=1e-5)
    for files in ([f"phases-{k}.npy" for k in (1, 2)], ["phases-[12].npy"]):
        seen = with_further(run, 3, [str(tmp_path / name) for name in files])
        np.testing.assert_allclose(np.exp(1j * seen.phases), np.exp(1j * expected), atol=1e-5)


def test_an_object_of_which_a_shot_is_of_another_is_left_out(run):
    many = with_further(run, SHOTS)
    shots = many.system.measure(many.variables[0], run.scenes(10), jax.random.key(0))
    shots = shots.at[3, 2].set(shots[4, 2])
    found = objects.recover_objects(many, shots)
    assert found.usable.tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert "no object explains" in rejection(objects.recover_objects, many, shots[:, ::-1])


def test_two_shots_that_are_exchanged_are_named(run):
    many = with_further(run, 6)
    shots = many.system.measure(many.variables[0], run.scenes(9), jax.random.key(0))
    for one, other in ((0, 1), (4, 5)):
        order = list(range(6))
        order[one], order[other] = other, one
        said = rejection(objects.recover_objects, many, shots[:, np.asarray(order)])
        assert f"shots {one + 1}, {other + 1} do not go" in said
    # Light is freer than an object: it takes more shots to tell.
    many = with_further(run, 9)
    blank = jnp.asarray(simulate(many, 0 * run.scenes(1)[0]), jnp.float32)
    exchanged = blank[np.asarray([0, 1, 3, 2, 4, 5, 6, 7, 8])]
    found = light.recover_light(many, exchanged)
    assert "shots 3, 4" in rejection(light.require_explained, many, exchanged, found)


def test_the_global_phase_is_the_darkest_images_unless_the_network_says_otherwise(run):
    many, scenes = with_further(run, 6), 0.3 + 0.5 * run.scenes(6)
    shots = many.system.measure(many.variables[0], scenes, jax.random.key(0))
    error = {
        name: float(jnp.max(jnp.abs(jnp.mean(found.images - scenes, axis=(1, 2, 3)))))
        for name, found in {
            "alone": objects.recover_objects(many, shots),
            "beside": objects.recover_objects(many, shots, jnp.clip(scenes + 0.01, 0, 1)),
            "grey": objects.recover_objects(many, shots, 0.0 * scenes + 0.5),
        }.items()
    }
    assert error["alone"] > 0.2 and error["beside"] < 0.02
    assert error["grey"] == error["alone"]  # who knows nothing of the objects has no say
    dark = run.scenes(6)
    shots = many.system.measure(many.variables[0], dark, jax.random.key(0))
    found = objects.recover_objects(many, shots, jnp.clip(dark + 0.02, 0, 1))
    assert float(jnp.max(jnp.abs(jnp.mean(found.images - dark, axis=(1, 2, 3))))) < 0.01


def test_light_over_a_beam_that_was_known_is_the_whole_beam(run, tmp_path):
    known = run.with_optics({"illumination": {"kind": "gaussian", "waist": 0.8}})
    jitter = changed(known.config.jitter, beam=0.02, waist=0.05)
    known = dataclasses.replace(known, config=changed(known.config, jitter=jitter))
    truth = BEAM | {"aberrations": {"zernike": (0.0, 0.0, 0.0, 2.0), "diameter": 1.5}}
    true = with_further(run.with_optics(truth), 6)
    shots = np.fft.fftshift(simulate(true, 0 * run.scenes(1)[0]), axes=(1, 2))
    np.save(tmp_path / "blank.npy", shots)
    window = make_window(shots.shape[1:], None, 1)
    lie = default_geometry(window, run.sensor, 1.0)
    references = References(shots.shape[1:])
    bench = light.see_bench(
        known,
        Setup(references, window, lie, sampling="area"),
        tuple(list_frames(str(tmp_path / "blank.npy"))),
        all_shots=lambda one: with_further(one, 6),
        mask_side=lambda _: 0.0,
        **{"fit": [], "folder": tmp_path, "begun": None},
    )
    beam = bench.run.camera.beam
    assert beam is not None and not beam.warnings()
    np.testing.assert_allclose(
        beam.amplitude(), gaussian(run.camera.size, **BEAM["illumination"]), atol=0.05
    )
    wavefront = np.asarray(run.with_optics(truth).camera.beam.wavefront())
    difference = np.asarray(beam.wavefront()) - wavefront
    np.testing.assert_allclose(difference - difference.mean(), 0, atol=0.1)
    assert bench.run.config.jitter.beam == 0 and bench.run.config.jitter.waist == 0


def test_light_and_modulator_are_found_in_the_shots_of_the_empty_beam(run):
    wavefront = {"aberrations": {"zernike": (0.0, 0.3, 0.0, 0.5)}}
    true = with_further(run.with_optics(BEAM | wavefront | {"device": {"gain": 1.1}}), 6)
    blank = jnp.asarray(simulate(true, 0 * run.scenes(1)[0]), jnp.float32)
    believed = with_further(run, 6)
    fitted = light.fit_device(believed, blank, ["gain"])
    assert fitted["gain"] == pytest.approx(1.1, abs=3e-3)
    found = light.recover_light(with_further(run.with_optics({"device": fitted}), 6), blank)
    expected = gaussian(run.camera.size, **BEAM["illumination"])
    beam = true.camera.beam
    assert beam is not None
    expected = expected * np.exp(1j * np.asarray(beam.wavefront()))
    expected *= np.exp(-1j * np.angle(expected.mean()))
    field = found.amplitude * np.exp(1j * found.phase)
    assert found.misfit < 0.01
    np.testing.assert_allclose(field, expected, atol=0.05)


def test_what_one_shot_asks_for_is_met_by_the_truth(run):
    scenes = run.scenes(3)
    shots = run.system.measure(run.variables[0], scenes, jax.random.key(0))
    explain = make_explain(run.camera)
    misfits = explain(run.optics, scenes, shots)
    np.testing.assert_allclose(misfits, 0.0, atol=1e-3)
    of_others = explain(run.optics, scenes[::-1], shots)
    assert of_others[0] > 0.1 and of_others[2] > 0.1
    shifts = jnp.asarray([[1, 0], [0, -2], [3, 3]])
    moved = _shifted(scenes, shifts)
    for image, shift, found in zip(scenes, shifts, moved, strict=True):
        assert same(found, np.roll(image, np.asarray(shift), axis=(0, 1)))
