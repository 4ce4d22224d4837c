"""The package as others get it: a wheel, installed where this checkout is not to be seen."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import user_environment
from helpers import ROOT

NOTEBOOK = """
import jax_kdpr as kdpr

assert kdpr.__file__.startswith({site!r}), kdpr.__file__
config = kdpr.presets.quickstart()
config.regime = "e2e"
config.data.size, config.net.widths = 16, (8, 16)
config.spectral.iterations = 2
config.data.train_images = config.data.validation_images = config.data.test_images = 4
config.train.batch_size, config.train.epochs = 4, 1
rows = kdpr.train(config, "run")
run = kdpr.load("run")
print(len(rows), run.reconstruct(run.measure(run.scenes(2))).phase.shape)
"""


@pytest.mark.slow
def test_a_wheel_lists_its_commands_and_trains_in_another_folder(tmp_path):
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "--quiet", "--no-input", "--disable-pip-version-check"]
    build = ["--no-deps", "--no-build-isolation", "--no-cache-dir", "--wheel-dir", tmp_path]
    subprocess.run([*pip, "wheel", *build, copied_sources(tmp_path / "sources")], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True)

    def run(*command: object) -> str:
        environment = user_environment(PYTHONPATH=str(site))
        ran = subprocess.run(
            [*map(str, command)], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    listed = run(sys.executable, site / "bin" / "kdpr")
    for path in ROOT.glob("jax_kdpr/[a-z]*.py"):
        assert f"\n  {path.stem} " in listed
    assert run(sys.executable, "-c", NOTEBOOK.format(site=str(site))).endswith("1 (2, 16, 16)\n")


@pytest.mark.slow
def test_an_editable_install_is_found_beside_a_folder_of_its_name(tmp_path):
    """Such as the clone beside a notebook: its sources lie on the path, no finder comes later."""
    sources = copied_sources(tmp_path / "sources")
    code = "from setuptools.build_meta import build_editable as make; print(make('..'))"
    subprocess.run([sys.executable, "-c", code], cwd=sources, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    shutil.unpack_archive(wheel, tmp_path / "site", "zip")
    (tmp_path / "notebooks" / "jax_kdpr").mkdir(parents=True)
    imports = f"import site; site.addsitedir({str(tmp_path / 'site')!r}); import jax_kdpr"
    command = [sys.executable, "-S", "-c", f"{imports}; print(jax_kdpr.__file__)"]
    place = {"cwd": tmp_path / "notebooks", "env": {}, "capture_output": True, "text": True}
    found = subprocess.run(command, check=True, **place)
    assert found.stdout.strip() == str(sources / "jax_kdpr" / "__init__.py")


def copied_sources(folder: Path) -> Path:
    """What git tracks of the package: a build leaves files beside its sources."""
    tracked = subprocess.run(
        ["git", "ls-files", "jax_kdpr", "pyproject.toml", "README.md", "LICENSE"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in tracked.stdout.split():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder
