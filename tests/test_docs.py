"""The pages: their links, options and lengths, and the commands of the way to the bench and back.

These run one after the other, as a reader runs them, on a small system.
"""

import re
import shlex
from pathlib import Path

import pytest
from commands import run
from helpers import ROOT

from jax_kdpr.config import schema
from jax_kdpr.core import json_files

DOCS = ROOT / "docs"
# In this order a reader comes to them.
WAY = ("devices", "beam", "tolerances", "masks", "reconstruct", "solvers")
SMALL = """
from jax_kdpr import presets

def get_config():
    config = presets.bench(presets.quickstart())
    config.regime = "e2e"
    config.data.size = 16
    config.data.train_images, config.data.validation_images = 64, 32
    config.data.test_images = 16
    config.net.widths = (8, 16)
    config.spectral.iterations, config.spectral.consistency_steps = 5, 3
    config.train.epochs = 1
    return config
"""
# What the page's counts are cut down to.
QUICKER = {
    "tolerance": ["--benches=4", "--images=8", "--errors=shift"],
    "ambiguity": ["--scenes=1"],
    "solve": ["--solver=error_reduction", "--images=4", "--steps=20"],
    "evaluate": ["--refine=5"],
}


WRITTEN = [
    page
    for page in sorted(DOCS.rglob("*.md"))
    if not {"options", "commands", "api"}
    & set(page.relative_to(DOCS).parts)  # of generated_pages.py
]
PAGES = (*ROOT.glob("*.md"), *WRITTEN, *ROOT.glob("results/*/README.md"))


def blocks(kind: str) -> list[str]:
    """The blocks of code of a kind, page by page."""
    text = "".join((DOCS / "guides" / f"{name}.md").read_text() for name in WAY)
    return re.findall(rf"^```{kind}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    return [line for block in blocks("sh") for line in block.replace("\\\n", "").splitlines()]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A folder where the page's config is a small one, and what each command printed there."""
    folder = tmp_path_factory.mktemp("bench")
    for name in ("bench_consistent", "plate"):
        (folder / "configs" / name).mkdir(parents=True)
        (folder / "configs" / name / "e2e.py").write_text(SMALL)
    (example,) = blocks("toml")
    (folder / "bench.toml").write_text(example)
    printed = {}
    for command in commands():
        if any(other.startswith(f"{command} ") for other in commands()):
            continue  # and it comes again with more options
        module, *arguments = shlex.split(command.removeprefix("python -m jax_kdpr."))
        ran = run(module, *arguments, *QUICKER.get(module, []), cwd=folder)
        assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
        printed[module] = ran.stdout
    return folder, printed


@pytest.mark.slow
def test_the_way_to_the_bench_and_back(bench):
    folder, printed = bench
    run = folder / "runs" / "bench"
    assert "fits the chip" in printed["geometry"]
    assert "loss" in printed["export_mask"]
    for made in ("export/slm-0.png", "export/slm-0.png.json", "tolerance.md", "solve/solve.md"):
        assert (run / made).stat().st_size > 100, made
    assert len(list((run / "objects").glob("*.tif"))) == 8


@pytest.mark.slow
def test_the_rehearsal_is_measured_as_the_model_sees_it(bench):
    folder, _ = bench
    found = json_files.read_json(folder / "runs" / "bench" / "calibration.json")
    truth = json_files.read_json(folder / "runs" / "bench" / "frames" / "truth.json")
    for name in ("centre_y", "centre_x"):
        assert found["geometry"][name] == pytest.approx(truth["geometry"][name], abs=0.1)
    assert found["geometry"]["rotation"] == pytest.approx(truth["geometry"]["rotation"], abs=0.2)


def test_every_module_of_the_pages_is_a_command():
    modules = {command.split()[2] for command in commands()}
    assert len(modules) >= 9
    for module in modules:
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists(), module


def test_the_page_on_installing_lists_every_command():
    page = (DOCS / "start" / "install.md").read_text()
    listed = re.findall(
        r"^\| `(\w+)` \| [a-z]", page.partition("## How do I use a GPU")[0], re.MULTILINE
    )
    there = [path.stem for path in (ROOT / "jax_kdpr").glob("[!_]*.py")]
    assert sorted(listed) == sorted(there)


def test_pages_name_options_that_exist_with_their_defaults():
    known = schema.flatten(schema.Config())
    sections = {path.split(".")[0] for path in known if "." in path}
    named_still = known | schema.GONE
    for page in PAGES:
        text = page.read_text()
        named = re.findall(r"`(?:--config\.)?([a-z]+)\.(?!npy|py\b)([a-z_]+)[=`]", text)
        for section, name in named:
            is_known = section not in sections or f"{section}.{name}" in named_still
            assert is_known, (page, section, name)


def anchors(page: Path) -> set[str]:
    """What links may point to in a page, as GitHub names its headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" not in link:
            file, _, anchor = link.partition("#")
            target = page.parent / file if file else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(DOCS)))
def test_a_page_is_read_in_one_sitting(page):
    assert len(page.read_text().split()) <= 1500


def test_the_readme_is_one_screen_or_two():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
