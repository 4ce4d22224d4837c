"""Places and settings of a machine that are not the usual ones."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from commands import user_environment
from helpers import rejection, tiny_config

from jax_kdpr.config import schema as config_lib
from jax_kdpr.config.schema import Config
from jax_kdpr.core import runtime, signals, whole_files
from jax_kdpr.core.limits import IN_METRES, number_hint
from jax_kdpr.data import sources
from jax_kdpr.interface import cli
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.run import load_data

SCENES = {"train_images": 32, "validation_images": 16, "test_images": 16}
# As run folders have recorded it since the first version.
DIGEST = "83d31d1c1ce502024b376af7bf9f31e6fc6afcce2534da34ba42da79a7b442ae"


def run_python(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = user_environment(**variables)
    return subprocess.run(
        ["bash", "-c", program, sys.executable], env=environment, capture_output=True, text=True
    )


def digest() -> str:
    return sources.load(source="scenes", size=16, **SCENES).digest


def test_the_digest_of_scenes_is_that_of_old_folders_and_sees_the_random_numbers():
    assert digest() == DIGEST
    with jax.threefry_partitionable(False):
        other = digest()
    with jax.default_prng_impl("rbg"):
        third = digest()
    assert len({other, third, DIGEST}) == 3 and digest() == DIGEST


def test_a_command_draws_the_same_whatever_the_environment_says():
    code = (
        "from jax_kdpr.core import runtime; runtime.set_up(); from jax_kdpr.data.scenes import "
        "draw_scenes; import jax, hashlib; x = draw_scenes(jax.random.key(0), count=2, size=16); "
        "print(x.dtype, hashlib.sha256(x.tobytes()).hexdigest())"
    )
    usual = run_python(f'"$0" -c "{code}"')
    odd = run_python(
        f'"$0" -c "{code}"',
        **{"JAX_ENABLE_X64": "1", "JAX_DEFAULT_PRNG_IMPL": "rbg"},
        JAX_THREEFRY_PARTITIONABLE="0",
    )
    assert usual.stdout.startswith("float32 ") and odd.stdout == usual.stdout, odd.stderr


def test_a_platform_that_is_not_there_is_one_line():
    found = run_python('"$0" -m jax_kdpr.geometry --pixels 4', JAX_PLATFORMS="cuda")
    assert found.returncode == 2 and len(found.stderr.splitlines()) == 1
    assert "JAX_PLATFORMS: no device of 'cuda'" in found.stderr


def test_help_ends_quietly_where_nobody_reads_on():
    found = run_python('"$0" -m jax_kdpr.train --help | head -1')
    assert found.stdout.startswith("Trains one run") and not found.stderr


def test_without_home_or_cache_folder_nothing_is_kept(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv(runtime.CACHE_VARIABLE, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert runtime._cache_folder() == str(tmp_path / ".cache" / "jax_kdpr")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(runtime.CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    assert runtime._cache_folder() is None
    monkeypatch.delenv(runtime.CACHE_VARIABLE)

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert runtime._cache_folder() is None


def test_a_folder_is_writable_as_far_as_what_is_there_says(tmp_path):
    assert whole_files.is_writable(tmp_path / "a" / "b")
    (tmp_path / "file").write_text("")
    assert not whole_files.is_writable(tmp_path / "file")
    assert not whole_files.is_writable(tmp_path / "file" / "b")


def test_a_commit_is_of_the_repository_that_holds_the_package(monkeypatch, tmp_path):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    package = tmp_path / "package" / "run_folder.py"
    package.parent.mkdir()
    package.write_text("")
    (tmp_path / "other.py").write_text("")
    monkeypatch.setattr(run_folder, "__file__", str(package))
    assert run_folder._commit() == ""
    for command in (["init", "-q"], ["add", "other.py"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True)
    assert run_folder._commit() == ""
    for command in (["add", "package"], ["commit", "-qm", "y"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    assert run_folder._commit() == head.stdout[:12]
    package.write_text("changed")
    assert run_folder._commit() == head.stdout[:12] + "+"


def test_paths_of_a_config_become_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    config = Config()
    config.data.dir, config.distill.teacher = "~/images", "runs/teacher"
    config.data.tfds_manual_dir = "gs://bucket/data"
    config_lib.resolve_paths(config)
    assert config.data.dir == "/home/me/images"
    assert config.distill.teacher == os.path.join(tmp_path, "runs/teacher")
    assert config.data.tfds_manual_dir == "gs://bucket/data"
    empty = Config()
    config_lib.resolve_paths(empty)
    assert empty == Config()


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("2*pi", "; write 6.283185307"),
        ("pi/2", "; write 1.570796327"),
        ("1.5 pi", "; write 4.71238898"),
        ("pie", ""),
        ("2", ""),
        ("200mm", IN_METRES),
        ("532e-3 um", IN_METRES),
        ("3 bananas", ""),
    ],
)
def test_a_number_with_pi_or_a_unit_is_told_in_digits(text, hint):
    assert number_hint(text) == hint


def test_scenes_that_are_drawn_otherwise_are_told_though_their_digest_is_the_same(
    tmp_path, monkeypatch
):
    config = tiny_config()
    data = sources.load(**config_lib.data_arguments(config))
    digests = {"data": data.digest}
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    run_folder.record_session(tmp_path / "old", config, digests)  # as earlier versions did
    run_folder.record_session(tmp_path / "new", config, digests, data.sample)
    draw = sources.draw_scenes
    for change, same in ((1e-3, True), (-1.0, False)):
        monkeypatch.setattr(
            sources, "draw_scenes", lambda *args, c=change, **shape: (1 + c) * draw(*args, **shape)
        )
        drawn = sources.load(**config_lib.data_arguments(config))
        assert drawn.digest == data.digest
        load_data(tmp_path / "old", config)
        for call, rest in ((load_data, ()), (run_folder.check_workdir, (digests, drawn.sample))):
            if same:
                call(tmp_path / "new", config, *rest)
            else:
                assert "draws otherwise" in rejection(call, tmp_path / "new", config, *rest)


INTERRUPTED = """
import os, signal, sys, time

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "importlib.metadata":  # the first import that takes long
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(30)

sys.meta_path.insert(0, Interrupting())
"""


def test_a_signal_during_the_imports_of_a_command_is_one_word(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    for started in ("-m jax_kdpr.train", "-mjax_kdpr.train --config x"):
        found = run_python(f'exec "$0" {started}')
        assert (found.returncode, found.stderr) == (128 + signal.SIGINT, "interrupted\n"), started


def test_signals_of_another_program_are_left_alone(tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "__init__.py").write_text("import jax_kdpr, signal")
    (tmp_path / "other" / "work.py").write_text(
        "import signal\nprint(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    found = run_python('exec "$0" -m other.work --then=jax_kdpr.train')
    assert (found.stdout, found.stderr) == ("True\n", "")


@pytest.fixture
def command(monkeypatch):
    """command(main) -> the exit code of a command, without flags, signals and devices."""
    for module, name in ((runtime, "set_up"), (signals, "take_over"), (signals, "all_done")):
        monkeypatch.setattr(module, name, lambda *_: None)
    monkeypatch.setattr(cli.app, "run", lambda main, flags_parser: sys.exit(main(["the command"])))

    def run(main):
        with pytest.raises(SystemExit) as ended:
            cli.run(main)
        return ended.value.code

    return run


@pytest.mark.parametrize("number", ["ENOENT", "ESTALE", "EMFILE", "EFBIG", "EDQUOT", "ENODEV"])
def test_what_the_system_refuses_is_one_line(command, capsys, number):
    code = getattr(errno, number)

    def main(_):
        raise OSError(code, os.strerror(code), "out/solve.md")

    assert command(main) == cli.STOPPED
    assert capsys.readouterr().err == (
        f"error: out/solve.md: {os.strerror(code)}; make room, or mend the place, and run the same "
        "command again\n"
    )


def test_a_folder_that_goes_while_a_command_works_is_one_line(command, capsys, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()

    def main(_):
        def write(file):
            file.write(b"half")
            shutil.rmtree(folder)

        whole_files.write_whole(folder / "masks.npy", write)

    assert command(main) == cli.STOPPED
    said = capsys.readouterr().err
    assert said.startswith(f"error: {folder / 'masks.npy'}: No such file") and said.count("\n") == 1


def test_output_that_nobody_reads_ends_a_command_in_silence():
    numbers = (
        "--pixels=32 --wavelength=5e-7 --focal_length=0.2 --mask_pitch=1e-5 --camera_pixel=4e-6"
    )
    found = run_python(f'"$0" -m jax_kdpr.geometry {numbers} | true; echo ${{PIPESTATUS[0]}}')
    assert (found.stdout, found.stderr) == (f"{128 + signal.SIGPIPE}\n", "")
