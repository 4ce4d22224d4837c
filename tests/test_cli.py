"""Command lines in this process: what flags, config files or the system have wrong is one line."""

import errno
import os
import shutil
import signal
import sys

import pytest
from absl import flags
from ml_collections import config_flags
from places import Place

from jax_kdpr.config import checks
from jax_kdpr.config.schema import Config
from jax_kdpr.core import runtime, signals, whole_files
from jax_kdpr.core.limits import IN_METRES, number_hint
from jax_kdpr.core.options import described
from jax_kdpr.interface import cli
from jax_kdpr.studies.declaration import Study

# As ml_collections reads config files.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
TINY = ("--config", "tiny.py")


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    """command(*arguments) -> (exit code, what it says) of one that reads --config and --target."""
    own = flags.FlagValues()
    flags.DEFINE_float("target", None, "", flag_values=own)
    flags.DEFINE_list("allow_code", [], "", flag_values=own)
    config = config_flags.DEFINE_config_file("config", None, flag_values=own)
    monkeypatch.setattr(flags, "FLAGS", own)
    kept = ((signal, "signal"), (runtime, "set_up"), (signals, "take_over"), (signals, "all_done"))
    for module, name in kept:  # of this process
        monkeypatch.setattr(module, name, lambda *_: None)
    monkeypatch.setattr(
        cli.app, "run", lambda main, flags_parser: sys.exit(main(flags_parser(sys.argv)))
    )
    monkeypatch.chdir(tmp_path)
    Place(tmp_path)

    def run(*arguments, main=None, kind=Config, **options):
        def read(_):
            found = cli.load_config(config, kind)
            print(described(checks.ready(found) if kind is Config else found))

        monkeypatch.setattr(sys, "argv", ["command", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.run(main or read, **options)
        output, errors = capsys.readouterr()
        return ended.value.code, errors or output

    return run


def refusal(code: int, said: str) -> str:
    assert code == cli.BAD_INPUT and said.startswith("error: ") and said.count("\n") == 1, said
    return said


# What the config file does, the arguments, and what the one line must name.
ROWS = {
    "an unknown option": ("", (*TINY, "--config.data.siez=16"), ("data.siez", "data.size?")),
    "one in the file": ("config.data.siez = 16", TINY, ("tiny.py", "line 15", "'siez'")),
    "no Python": ("=", TINY, ("tiny.py", "line 15", "SyntaxError")),
    "no config of a run": ("return 3", TINY, ("schema.Config", "int")),
    "an option as a flag": ("", (*TINY, "--epochs=5"), ("'epochs'", "--config.train.epochs")),
    "no finite number": ("", (*TINY, "--target=nan"), ("--target", "nan")),
    "no number": ("", (*TINY, "--target=2*pi"), ("--target", "2*pi", "write 6.283185307")),
    "no number of an option": ("", (*TINY, "--config.seed=pi/2"), ("seed: ", "1.570796327")),
    "no integer": ("", (*TINY, "--config.data.size=big"), ("data.size", "integer", "big")),
    "no choice": ("", (*TINY, "--config.regime=techer"), ("regime", "student", "techer")),
    "an option that has gone": (
        "",
        (*TINY, "--config.loss.balance=x"),
        ("loss.balance", "43d84cf"),
    ),
    "no such file": ("", ("--config", "tinny.py"), ("--config", "'tinny.py'")),
    "no config": ("", (), ("--config",)),
}


@pytest.mark.parametrize("row", ROWS)
def test_flags_and_config_files(command, tmp_path, row):
    line, arguments, names = ROWS[row]
    Place(tmp_path).config(line or "pass")
    said = refusal(*command(*arguments))
    assert all(name in said for name in names), said


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("data.size", "32", 32),
        ("optim.mask_lr", "1e-3", 1e-3),
        ("loss.alpha", "1", 1.0),
        ("net.widths", "8,16", (8, 16)),
        ("data.rescale", "true", True),
    ],
)
def test_an_option_is_set_to_what_is_meant(command, path, text, value):
    code, said = command(*TINY, f"--config.{path}={text}")
    assert code == 0 and f"{path!r}: Described(value={value!r}," in said


@pytest.mark.parametrize(
    ("option", "names"),
    [
        ("base.data.siez=3", ("data.siez", "base.data.size")),
        ("train.epochs=3", ("base.train.epochs",)),
        ("base.data.size=big", ("base.data.size", "integer", "big")),
        *((f"{path}=x", (path,)) for path in ("refine", "entries", "sections")),
    ],
)
def test_options_of_a_study_have_a_prefix(command, option, names):
    how = {"kind": Study, "prefix": "base.", "others": ("seeds", "refine")}
    said = refusal(*command("--config", "study.py", f"--config.{option}", **how))
    assert all(name in said for name in names), said


def test_help_has_every_option_with_its_meaning_and_choices(command):
    code, page = command("--help")
    assert code == 0 and max(map(len, page.splitlines())) <= 100
    words = " ".join(page.split())
    for path, option in described(Config()).items():
        assert option.says and f"{path} = " in words and option.says in words, path
        assert not option.choices or f"one of {', '.join(option.choices)}" in words, path


@pytest.mark.parametrize("number", ["ENOENT", "EMFILE", "EDQUOT"])
def test_what_the_system_refuses_is_one_line(command, number):
    code = getattr(errno, number)

    def main(_):
        raise OSError(code, os.strerror(code), "out/solve.md")

    ended, said = command(main=main)
    assert ended == cli.STOPPED and said.count("\n") == 1
    assert said.startswith(f"error: out/solve.md: {os.strerror(code)}; ")


def test_a_folder_that_goes_while_a_command_works_is_one_line(command, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()

    def main(_):
        with whole_files.whole(folder / "masks.npy") as file:
            file.write(b"half")
            shutil.rmtree(folder)

    code, said = command(main=main)
    assert code == cli.STOPPED and said.count("\n") == 1
    assert said.startswith(f"error: {folder / 'masks.npy'}: No such file")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("2*pi", "; write 6.283185307"),
        ("pi/2", "; write 1.570796327"),
        ("1.5 pi", "; write 4.71238898"),
        ("pie", ""),
        ("532e-3 um", IN_METRES),
        ("3 bananas", ""),
    ],
)
def test_a_number_with_pi_or_a_unit_is_told_in_digits(text, hint):
    assert number_hint(text) == hint
