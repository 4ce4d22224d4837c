"""Places and settings of a machine that are not the usual ones."""

import contextlib
import os
import signal
import subprocess
import sys

import jax
import pytest
from commands import user_environment
from helpers import rejection, tiny_config

from jax_kdpr.config import schema
from jax_kdpr.config.schema import Config
from jax_kdpr.core import provenance, runtime
from jax_kdpr.data import sources
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.run import load_data

SCENES = {"train_images": 1, "validation_images": 1, "test_images": 1}


def run_python(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = user_environment(**variables)
    return subprocess.run(
        ["bash", "-c", program, sys.executable], env=environment, capture_output=True, text=True
    )


@pytest.mark.slow
def test_the_digest_of_scenes_sees_the_random_numbers():
    digests = set()
    for change in (
        contextlib.nullcontext(),
        jax.threefry_partitionable(False),
        jax.default_prng_impl("rbg"),
    ):
        with change:
            digests.add(
                sources.load(sources.DataOptions(source="scenes", size=16, **SCENES)).digest
            )
    assert len(digests) == 3


@pytest.mark.slow
@pytest.mark.parametrize("shortest", ["", "100"])
def test_programs_that_compile_quickly_are_kept_too_unless_the_user_says_otherwise(
    tmp_path, shortest
):
    code = (
        "from jax_kdpr.core import runtime; runtime.set_up(); import jax.numpy as jnp; "
        "print(jnp.arange(3) + 1)"
    )
    cache = {runtime.CACHE_VARIABLE: str(tmp_path / "cache")}
    chosen = f'export {runtime.SHORTEST_VARIABLE}="{shortest}"; ' if shortest else ""
    ended = run_python(f'unset {runtime.SHORTEST_VARIABLE}; {chosen}exec "$0" -c "{code}"', **cache)
    assert ended.returncode == 0, ended.stderr
    assert bool(list((tmp_path / "cache").glob("*"))) == (not shortest)


@pytest.mark.slow
def test_a_command_draws_the_same_whatever_the_environment_says():
    code = (
        "from jax_kdpr.core import runtime; runtime.set_up(); from jax_kdpr.data.scenes import "
        "draw_scenes; import jax, hashlib; x = draw_scenes(jax.random.key(0), count=2, size=16); "
        "print(x.dtype, hashlib.sha256(x.tobytes()).hexdigest())"
    )
    usual = run_python(f'"$0" -c "{code}"')
    settings = {"ENABLE_X64": "1", "DEFAULT_PRNG_IMPL": "rbg", "THREEFRY_PARTITIONABLE": "0"}
    odd = run_python(f'"$0" -c "{code}"', **{f"JAX_{name}": settings[name] for name in settings})
    assert usual.stdout.startswith("float32 ") and odd.stdout == usual.stdout, odd.stderr


def test_a_platform_that_is_not_there_is_one_line(monkeypatch):
    def refuse():
        raise RuntimeError("Unknown backend")

    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "devices", refuse)
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    assert "JAX_PLATFORMS: no device of 'cuda'" in rejection(runtime.set_up)


@pytest.mark.parametrize(
    ("given", "then"),
    [
        ("", runtime.ONE_THREAD),
        ("--xla_dump_to=x", f"--xla_dump_to=x {runtime.ONE_THREAD}"),
        ("--xla_cpu_multi_thread_eigen=true", None),
        ("--xla_force_host_platform_device_count=4", None),
    ],
)
def test_devices_have_one_thread_unless_the_user_says_otherwise(monkeypatch, given, then):
    monkeypatch.setenv("XLA_FLAGS", given)
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    runtime.set_up()
    assert os.environ["XLA_FLAGS"] == (given if then is None else then)


def test_compiled_programs_are_kept_where_there_is_a_place(monkeypatch, tmp_path):
    for name in ("XDG_CACHE_HOME", runtime.CACHE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert runtime._cache_folder() == str(tmp_path / ".cache" / "jax_kdpr")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(runtime.CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    assert runtime._cache_folder() is None
    monkeypatch.delenv(runtime.CACHE_VARIABLE)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # of a user without a home
    assert runtime._cache_folder() is None


def test_a_commit_is_of_the_repository_that_holds_the_package(monkeypatch, tmp_path):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    package = tmp_path / "package" / "run_folder.py"
    package.parent.mkdir()
    package.write_text("")
    (tmp_path / "other.py").write_text("")
    monkeypatch.setattr(provenance, "__file__", str(package))
    assert provenance._commit() == ""
    for command in (["init", "-q"], ["add", "other.py"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True)
    assert provenance._commit() == ""
    for command in (["add", "package"], ["commit", "-qm", "y"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    assert provenance._commit() == head.stdout[:12]
    package.write_text("changed")
    assert provenance._commit() == head.stdout[:12] + "+"


def test_paths_of_a_config_become_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    config = Config()
    config.data.dir, config.distill.teacher = "~/images", "runs/teacher"
    config.data.tfds_manual_dir = "gs://bucket/data"
    schema.resolve_paths(config)
    assert config.data.dir == "/home/me/images"
    assert config.distill.teacher == os.path.join(tmp_path, "runs/teacher")
    assert config.data.tfds_manual_dir == "gs://bucket/data"
    empty = Config()
    schema.resolve_paths(empty)
    assert empty == Config()


def test_scenes_that_are_drawn_otherwise_are_told_though_their_digest_is_the_same(
    tmp_path, monkeypatch
):
    config = tiny_config()
    data = schema.load_data(config)
    digests = {"data": data.digest}
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    run_folder.record_session(tmp_path / "old", config, digests)  # as earlier versions did
    run_folder.record_session(tmp_path / "new", config, digests, data.sample)
    (tmp_path / "new" / "metrics.jsonl").write_text("{}\n")  # it has begun
    draw = sources.draw_scenes
    for change, same in ((1e-3, True), (-1.0, False)):
        monkeypatch.setattr(
            sources, "draw_scenes", lambda *args, c=change, **shape: (1 + c) * draw(*args, **shape)
        )
        drawn = schema.load_data(config)
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


@pytest.mark.slow
def test_a_signal_during_the_imports_of_a_command_is_one_word(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    for started in ("-m jax_kdpr.train", "-mjax_kdpr.train --config x"):
        found = run_python(f'exec "$0" {started}')
        assert (found.returncode, found.stderr) == (128 + signal.SIGINT, "interrupted\n"), started


@pytest.mark.slow
def test_signals_of_another_program_are_left_alone(tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "__init__.py").write_text("import jax_kdpr, signal")
    (tmp_path / "other" / "work.py").write_text(
        "import signal\nprint(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    found = run_python('exec "$0" -m other.work --then=jax_kdpr.train')
    assert (found.stdout, found.stderr) == ("True\n", "")


@pytest.mark.slow
def test_output_that_nobody_reads_ends_a_command_in_silence():
    numbers = (
        "--pixels=32 --wavelength=5e-7 --focal_length=0.2 --mask_pitch=1e-5 --camera_pixel=4e-6"
    )
    found = run_python(f'"$0" -m jax_kdpr.geometry {numbers} | true; echo ${{PIPESTATUS[0]}}')
    assert (found.stdout, found.stderr) == (f"{128 + signal.SIGPIPE}\n", "")
