"""Masks on a modulator and frames of a camera: by stand-ins, and on slmsuite's simulated bench."""

import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
from commands import run
from helpers import rejection
from PIL import Image

import jax_kdpr as kdpr
from jax_kdpr.config import presets
from jax_kdpr.config.schema import Config
from jax_kdpr.lab import hardware
from jax_kdpr.lab.masks.export import export_masks
from jax_kdpr.lab.masks.request import plan_export
from jax_kdpr.lab.masks.shown import ShownOptions, plan_addition
from jax_kdpr.optics.mask_files.format import MaskFormat

PANEL, SIDE = (300, 320), 8  # pixels of the panel, and of it in a mask pixel


class StandIn:
    """What is read of a modulator of slmsuite."""

    def __init__(self, shape=PANEL):
        self.shape, self.bitdepth, self.dtype, self.shown = shape, 8, np.uint8, []

    def set_phase(self, values, *, settle):
        assert settle
        self.shown.append(values)


def config_of(shots: int) -> Config:
    config = presets.quickstart()
    config.masks.snapshots = shots
    return config


def masks_of(shots: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 2 * np.pi, (shots, 32, 32)).astype(np.float32)


def export(folder, shots: int, *, shown: ShownOptions | None = None, **how):
    """Files of random masks for the panel, and the bench that has them."""
    bench = kdpr.bench(masks_of(shots), config_of(shots))
    plan = plan_export(MaskFormat(format="slm", panel=PANEL, magnify=SIDE, **how), bench.config)
    addition = plan_addition(shown or ShownOptions(), plan, size=32)
    phases = np.asarray(bench.camera.written(bench.phases))
    written = export_masks(plan, phases, bench, output=folder, addition=addition)
    return list(written), bench


def test_a_panel_adds_what_the_mask_takes_however_the_file_codes_it(tmp_path):
    for name, how in (("a", {}), ("b", {"falling": True}), ("c", {"sign": "direct"})):
        (path,), bench = export(tmp_path / name, 1, **how)
        panel = hardware.panel_phases(path, PANEL)
        inside = panel[22 : 22 + 32 * SIDE, 32 : 32 + 32 * SIDE]
        assert not np.delete(panel, np.s_[22 : 22 + 32 * SIDE], axis=0).any()
        turned = np.exp(1j * inside[::SIDE, ::SIDE]) * np.exp(1j * np.asarray(bench.phases[0]))
        assert np.abs(turned - 1).max() < np.pi / 256 + 1e-3  # half a gray level
    rows = np.arange(32.0)[:, None] * np.ones(32)
    both = hardware.panel_phases(path, PANEL, also=rows) - panel
    np.testing.assert_allclose(both[22 : 22 + 32 * SIDE : SIDE, 40], np.arange(32), atol=1e-4)


def test_levels_go_to_the_panel_as_the_file_has_them(tmp_path):
    (path,), _ = export(tmp_path, 1, falling=True)
    slm = StandIn()
    hardware.show_mask(slm, path, levels=True)
    hardware.show_mask(slm, path)
    gray, phases = slm.shown
    assert gray.dtype == np.uint8 and gray.shape == PANEL
    # As slmsuite reads gray levels: less phase the brighter, by 2 pi in 256 of them.
    turned = np.exp(-2j * np.pi * gray / 256) * np.exp(-1j * phases)
    inside = turned[22 : 22 + 32 * SIDE, 32 : 32 + 32 * SIDE]
    assert np.abs(inside / inside[0, 0] - 1).max() < 1e-4


def test_what_a_panel_or_camera_cannot_do_is_refused_and_writes_nothing(tmp_path):
    (path,), _ = export(tmp_path, 1)
    grey = SimpleNamespace(get_image=lambda: np.zeros((4, 5), np.uint16))
    coloured = SimpleNamespace(get_image=lambda: np.zeros((4, 5, 3), np.uint8))
    small, eight = StandIn((200, 320)), StandIn()
    for call, arguments, options, says in (
        (hardware.show_mask, (small, path), {}, "--panel 200x320"),
        (hardware.show_mask, (eight, path), {"mask": 1}, "expected a mask of 0 to 0, got 1"),
        (hardware.show_mask, (eight, path), {"also": np.zeros((3, 3))}, "also: expected"),
        (
            hardware.show_mask,
            (eight, path),
            {"levels": True, "also": np.zeros((32, 32))},
            "leave mask and also out",
        ),
        (hardware.show_mask, (eight, tmp_path / "none.png"), {}, "none.png.json"),
        (hardware.take_frames, (coloured,), {}, "expected grey frames"),
        (hardware.photograph, (eight, grey, [], tmp_path / "x"), {}, "expected a list of files"),
    ):
        assert says in rejection(call, *arguments, **options)
    assert not list(tmp_path.glob("x*")) and not small.shown
    # Nothing is shown or written before all masks are checked.
    shown = len(eight.shown)
    rejection(hardware.photograph, eight, grey, [path, tmp_path / "none.png"], tmp_path / "x")
    bench = kdpr.bench(masks_of(2), config_of(2))
    asked = plan_export(MaskFormat(format="npy", stack=True), bench.config)
    (stack,) = export_masks(asked, np.asarray(bench.phases), bench, output=tmp_path / "stack")
    said = rejection(hardware.photograph, eight, grey, [stack], tmp_path / "x")
    assert "holds 2 masks" in said
    summed = SimpleNamespace(get_image=lambda: np.zeros((4, 5)))
    assert "unsigned counts" in rejection(
        hardware.photograph, eight, summed, [path], tmp_path / "x"
    )
    assert not list(tmp_path.glob("x*"))
    eight.shown = eight.shown[:shown]
    (first,) = hardware.photograph(eight, grey, [path], tmp_path / "x")
    assert tifffile.imread(first).dtype == np.uint16
    assert "already" in rejection(hardware.photograph, eight, grey, [path], tmp_path / "x")


def test_a_camera_that_runs_freely_gives_no_frame_of_the_mask_before(tmp_path):
    (first,), _ = export(tmp_path / "a", 1)
    (second,), _ = export(tmp_path / "b", 1, falling=True)
    slm = StandIn()

    class Free:
        """Its buffer holds a frame of what was shown before, until it is flushed."""

        buffered = 0

        def flush(self):
            self.buffered = len(slm.shown)

        def get_image(self):
            seen, self.buffered = self.buffered, len(slm.shown)
            return np.full((2, 2), seen, np.uint8)

    taken = hardware.photograph(slm, Free(), [first, second], tmp_path / "x")
    assert [int(tifffile.imread(path)[0, 0]) for path in taken] == [1, 2]


@pytest.mark.filterwarnings("ignore")  # that there is no cupy
def test_the_session_of_the_page_runs_as_it_stands(tmp_path, monkeypatch):
    require_slmsuite()
    page = (Path(__file__).parents[1] / "docs" / "guides" / "hardware.md").read_text()
    (session,) = [
        block
        for block in re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
        if "SimulatedSLM(" in block
    ]
    export(tmp_path / "mask", 1)
    monkeypatch.chdir(tmp_path)
    exec(compile(session, "docs/guides/hardware.md", "exec"), {"phase": np.eye(32)})
    blank, cell = (tifffile.imread(f"{name}_00.tif") for name in ("blank/blank", "shots/cell-1"))
    assert blank.shape == cell.shape == (288, 304) and blank.max() > 2000
    assert (blank != cell).any()


def require_slmsuite() -> None:
    try:
        import slmsuite  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        if os.environ.get("KDPR_REQUIRE_SLM"):
            raise
        pytest.skip("wants slmsuite, the extra slm")


@pytest.mark.filterwarnings("ignore")  # that there is no cupy
def test_the_makers_correction_is_added_as_slmsuite_adds_it(tmp_path):
    require_slmsuite()
    from slmsuite.hardware.slms.simulated import SimulatedSLM

    levels = np.random.default_rng(1).integers(0, 256, PANEL).astype(np.uint8)
    Image.fromarray(levels).save(tmp_path / "maker.bmp")
    shown = ShownOptions(correction=str(tmp_path / "maker.bmp"))
    (path,), _ = export(tmp_path / "masks", 1, falling=True, shown=shown)
    slm = SimulatedSLM(PANEL[::-1], wav_um=0.532, wav_design_um=0.532, bitdepth=8)
    hardware.show_mask(slm, path, levels=True)
    ours = np.array(slm.display, int)
    np.testing.assert_array_equal(ours, np.asarray(Image.open(path.with_name("shown-0.png"))))
    slm.load_vendor_phase_correction(str(tmp_path / "maker.bmp"))
    hardware.show_mask(slm, path)
    apart = (ours - np.array(slm.display, int) + 128) % 256 - 128
    assert np.abs(apart - np.median(apart)).max() <= 1  # a constant phase; levels are rounded


@pytest.mark.filterwarnings("ignore")  # that there is no cupy
def test_slmsuites_bench_is_calibrated_and_its_objects_recovered(tmp_path):
    """Somebody else's modulator, propagation and camera: nothing of ours makes the frames."""
    require_slmsuite()
    from slmsuite.hardware.cameras.simulated import SimulatedCamera
    from slmsuite.hardware.slms.simulated import SimulatedSLM

    shots = 1
    masks, bench = export(tmp_path / "masks", shots, falling=True)
    images = np.asarray(bench.scenes(3))

    def around(values: np.ndarray) -> np.ndarray:
        return np.pad(np.kron(values, np.ones((SIDE, SIDE))), ((22, 22), (32, 32)))

    slm = SimulatedSLM(PANEL[::-1], pitch_um=(8, 8), wav_um=0.532, bitdepth=8)
    slm.source["amplitude_sim"] = around(np.ones((32, 32)))  # light passes the mask alone
    # Six pixels to a sample: slmsuite's camera takes the nearest sample of its own pattern.
    camera = SimulatedCamera(
        slm, resolution=(304, 288), pitch_um=(8.5, 8.5), bitdepth=12, fliplr=True
    )
    camera.set_affine(f_eff=0.2, units="m", theta=np.deg2rad(1.2), offset=(156.6, 141.2))
    camera.exposure_s = 1
    beams = [np.zeros((32, 32)), *(bench.camera.scene.phase_range * images[..., 0])]
    brightest = 0.0
    for beam in beams:
        slm.source["phase_sim"] = around(beam)  # the object stands in the beam, before the mask
        for path in masks:
            hardware.show_mask(slm, path)
            brightest = max(brightest, camera.render().max())
    camera.gain = 0.85 * 4095 / brightest
    for number, beam in enumerate(beams):
        slm.source["phase_sim"] = around(beam)
        folder = "blank" if number == 0 else "frames"
        hardware.photograph(slm, camera, masks, tmp_path / folder / f"object-{number}")
    hardware.photograph(slm, camera, masks, tmp_path / "gray" / "object", levels=True)
    by_gray, by_phase = (
        tifffile.imread(tmp_path / name).astype(int)
        for name in ("gray/object_00.tif", "frames/object-3_00.tif")
    )
    assert np.abs(by_gray - by_phase).max() <= 1  # of 4095

    config = tmp_path / "config.py"
    config.write_text(
        "from jax_kdpr.config import presets\n\n\ndef get_config():\n"
        "    config = presets.quickstart()\n"
        f"    config.masks.start, config.masks.snapshots = 'file', {shots}\n"
        f"    config.masks.file = {str(tmp_path / 'masks.npy')!r}\n"
        "    return config\n"
    )
    np.save(tmp_path / "masks.npy", masks_of(shots))
    np.save(tmp_path / "truth.npy", images[..., 0])
    found = run(
        "calibrate",
        f"--config={config}",
        f"--input={tmp_path}/blank/*.tif",
        "--scale=6",
        f"--output={tmp_path}/calibration.json",
    )
    assert found.returncode == 0, found.stderr
    calibration = json.loads((tmp_path / "calibration.json").read_text())
    geometry = calibration["geometry"]
    # lambda f / (N p) over the camera's pixel, and what was set of the camera.
    assert abs(geometry["scale"] - 0.532e-6 * 0.2 / (32 * 64e-6) / 8.5e-6) < 0.01
    assert abs(geometry["centre_y"] - 141.2) < 0.1 and abs(geometry["centre_x"] - 146.4) < 0.1
    assert abs(geometry["rotation"] - 1.2) < 0.03 and geometry["flip"] == "horizontal"
    assert calibration["score"] > 0.99

    frames = np.stack([tifffile.imread(one) for one in sorted((tmp_path / "frames").iterdir())])
    recovered = bench.reconstruct(frames, calibration=tmp_path / "calibration.json")
    scores = bench.camera.score(jnp.asarray(recovered.image), jnp.asarray(images))
    assert recovered.misfit.max() < 0.06
    assert float(jnp.mean(scores.psnr)) > 32 and float(jnp.max(scores.rms)) < 0.1
