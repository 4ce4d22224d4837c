"""A folder to run commands in, as a user does: each in a process of its own."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import commands
import numpy as np

CONFIG = """
from jax_kdpr.config.schema import Config

def get_config():
    config = Config()
    config.regime = "teacher"
    config.data.source = "images"
    config.data.dir = {stack!r}
    config.data.size = 16
    config.data.validation_fraction = config.data.test_fraction = 0.25
    config.spectral.iterations = 2
    config.net.widths = (8, 16)
    config.train.epochs = 2
    config.train.batch_size = config.train.eval_batch_size = 16
    {line}
    return config
"""
STUDY = """
import runpy
from jax_kdpr.studies.declaration import Entry, Study, Table

def get_config():
    base = runpy.run_path("tiny.py")["get_config"]()
    base.regime = "e2e"
    entries = {
        "e2e": Entry(label="E2E"),
        "random": Entry(label="random", changes={"regime": "random"}),
        "bound": Entry(label="bound", changes={"loss.rho": 0.5}),
    }
    table = Table(title="All", question="?", entries=tuple(entries), baseline="e2e")
    return Study(title="Three", base=base, entries=entries, sections=(table,), seeds=(0,))
"""


class Outcome(NamedTuple):
    code: int
    output: str
    errors: list[str]


class Place:
    """A folder to run commands in, with configs of a run and of a study, and 128 images."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.stack = folder / "stack.npy"
        rng = np.random.default_rng(0)
        np.save(self.stack, rng.integers(0, 256, (128, 16, 16), np.uint8))
        self.config()
        (folder / "study.py").write_text(STUDY)

    def config(self, line: str = "pass") -> None:
        (self.folder / "tiny.py").write_text(CONFIG.format(stack=str(self.stack), line=line))

    def run(self, command: str, *arguments: str) -> Outcome:
        done = commands.run(command, *arguments, cwd=self.folder)
        return Outcome(done.returncode, done.stdout, done.stderr.strip().splitlines())


def files(folder: Path) -> dict[str, str]:
    """Returns {path: digest} of everything below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
    }
