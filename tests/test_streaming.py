"""Images that are read while training, against the same from memory: equal to the bit."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import commands
import faults
import jax
import numpy as np
import pytest
from helpers import assert_equal_trees, image_config, rejection
from PIL import Image

from jax_kdpr.config import schema
from jax_kdpr.core.options import changed
from jax_kdpr.data import streaming
from jax_kdpr.data.batches import epoch_order, take_batch
from jax_kdpr.runs.run import training_keys

pytestmark = pytest.mark.slow
COUNT, SIZE = 60, 16
NO_ROOM = 1e-9  # GiB
SOME_ROOM = 5.2e-5  # for what is held back, and not for all


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        shape = (20, 24) if number % 3 else (16, 16)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """So many files that their names do not fit into a pipe."""
    folder = tmp_path_factory.mktemp("many")
    Image.fromarray(np.zeros((SIZE, SIZE), np.uint8)).save(folder / "0.png")
    content = (folder / "0.png").read_bytes()
    for number in range(1, 2500):
        (folder / f"{number}.png").write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """Phases in radians, of which some are below zero."""
    path = tmp_path_factory.mktemp("stack") / "phases.npy"
    phases = np.random.default_rng(0).uniform(-1.0, 2.0, (COUNT, SIZE, SIZE))
    np.save(path, phases.astype(np.float32))
    return path


def both(source, *, kind="phase", **options):
    """The data set from memory, and the same as a stream."""
    config = image_config(source, scene__kind=kind)
    config = changed(config, data=changed(config.data, size=SIZE, **options))
    room = changed(config, data=changed(config.data, memory=SOME_ROOM))
    return schema.load_data(config), schema.load_data(room)


@pytest.mark.parametrize("kind", ["folder", "limited", "radians", "skipping", "pairs"])
def test_a_stream_has_the_images_of_memory_to_the_bit(kind, pictures, stack, tmp_path, capsys):
    source, options = pictures, {}
    if kind == "limited":
        options = {"train_images": 20, "validation_images": 3, "seed": 3}
    if kind == "radians":
        source, options = stack, {"unit": "radians"}
    if kind == "skipping":
        source, options = tmp_path, {"skip_unreadable": True}
        for path in pictures.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        for name in ("4.png", "31.png"):
            (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:80])
    if kind == "pairs":
        options = {"kind": "complex"}
    held, stream = both(source, **options)
    assert held.stream is None and stream.stream is not None
    assert (stream.digest, stream.held_back_digest) == (held.digest, held.held_back_digest)
    assert (stream.train_size, stream.offset) == (held.train_size, held.offset)
    for name in ("validation", "test"):
        assert_equal_trees(getattr(stream, name), getattr(held, name))
    assert_equal_trees(stream.train(0), held.train(0))
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[: len(lines) // 2] == lines[len(lines) // 2 :] != []
    if kind == "skipping":
        assert len(re.findall(r"2 of 60 images are left out; the first: .*31.png", said.err)) == 2


@pytest.mark.parametrize(("kind", "channels"), [("phase", 1), ("phase", 2), ("complex", 2)])
def test_batches_are_those_of_the_epoch_s_order_from_any_step_on(kind, channels, pictures):
    held, stream = both(pictures, kind=kind)
    key, size = jax.random.key(7), 10
    steps = 2 * (held.train_size // size) + 3  # two epochs and a bit
    batches = stream.stream.batches(key, batch_size=size, channels=channels, steps=steps)
    with streaming.in_workers(batches, first=3) as made:
        found = list(made)
    each = held.train_size // size
    assert len(found) == steps - 3
    for step, batch in zip(range(3, steps), found, strict=True):
        order = epoch_order(key, step // each, held.train_size)
        rows = order[step % each * size : (step % each + 1) * size]
        wanted = take_batch(held.train(0), rows, size=SIZE, channels=channels)
        np.testing.assert_array_equal(np.moveaxis(batch, 1, -1), wanted)


@pytest.mark.parametrize(("kind", "channels"), [("phase", 1), ("complex", 2)])
def test_a_process_of_several_reads_its_share_of_each_batch(kind, channels, pictures):
    _, stream = both(pictures, kind=kind)
    whole = stream.stream.batches(jax.random.key(1), batch_size=12, channels=channels, steps=3)
    parts = [type(whole)(whole.stream, whole.order._replace(share=(part, 3))) for part in range(3)]
    np.testing.assert_array_equal(np.concatenate([part[2] for part in parts]), whole[2])


EACH = 24  # steps of an epoch of CONFIG
CONFIG = """
from jax_kdpr.config.schema import Config

def get_config():
    config = Config()
    config.data.source, config.data.dir = "images", "{folder}"
    config.data.size, config.net.widths, config.spectral.iterations = 16, (4, 8), 60
    config.train.batch_size = config.train.eval_batch_size = 2
    config.train.epochs, config.train.log_gradients, config.train.scan_steps = 12, True, 4
    return config
"""


def start(folder, *options):
    config = folder.parent / "stream.py"
    config.write_text(CONFIG.format(folder=folder))
    command = [sys.executable, "-m", "jax_kdpr.train", "--config", config, *options]
    environment = commands.user_environment(JAX_PLATFORMS="cpu")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(list(map(str, command)), env=environment, **pipes)


def workers_of(pid):
    """Processes that read for a process."""
    command = ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(pid)]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "spawn_main" in line]


def assert_gone(pids):
    """They end by themselves, soon."""
    until = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < until, pids
        time.sleep(0.1)


def test_a_streamed_training_is_that_from_memory_also_when_stopped_and_killed(pictures, tmp_path):
    """SIGTERM saves within an epoch; after SIGKILL the readers end by themselves."""
    held, streamed = tmp_path / "held", tmp_path / "streamed"
    process = start(pictures, "--workdir", held)
    assert process.communicate()[0] and process.returncode == 0
    options = ("--workdir", streamed, f"--config.data.memory={SOME_ROOM}")
    left, stopped_at = [], []
    for number in (*[signal.SIGTERM] * 5, signal.SIGKILL):
        if number == signal.SIGTERM and any(step % EACH for step in stopped_at):
            continue  # one was within an epoch
        process = start(pictures, *options)
        log = streamed / "metrics.jsonl"
        seen = log.read_text().count("\n") if log.exists() else 0
        while not log.exists() or log.read_text().count("\n") < seen + 1:
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.01)
        left += workers_of(process.pid)
        time.sleep(0.1 * len(stopped_at))
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == (128 + number if number == signal.SIGTERM else -number), said
        assert "read while training" in said, said
        assert "leaked" not in said or number == signal.SIGKILL, said
        stopped_at += [int(step) for step in re.findall(r"interrupted at step (\d+)", said)]
    assert any(step % EACH for step in stopped_at), stopped_at
    process = start(pictures, "--workdir", streamed)  # goes on from memory
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "resuming" in said and "read while training" not in said, said
    assert faults.record(streamed) == faults.record(held)
    assert left
    assert_gone(left)


def test_what_is_wrong_with_an_image_is_one_line(pictures, tmp_path):
    (tmp_path / "a").mkdir()
    for path in pictures.iterdir():
        (tmp_path / "a" / path.name).write_bytes(path.read_bytes())
    broken = tmp_path / "a" / "17.png"
    broken.write_bytes(broken.read_bytes()[:80])
    config = image_config(tmp_path / "a")
    config = changed(config, data=changed(config.data, memory=SOME_ROOM))
    assert "17.png: cannot be read" in rejection(schema.load_data, config)
    for path in (tmp_path / "a").iterdir():
        path.write_bytes(b"no image")
    config = changed(config, data=changed(config.data, skip_unreadable=True))
    assert "none of the 60 images" in rejection(schema.load_data, config)
    config = image_config(pictures)
    config = changed(config, data=changed(config.data, memory=NO_ROOM))
    assert "data.validation_images, data.test_images" in rejection(schema.load_data, config)
    packed = tmp_path / "stack.npz"
    np.savez(packed, np.zeros((COUNT, SIZE, SIZE), np.float32))
    config = image_config(packed)
    config = changed(config, data=changed(config.data, memory=SOME_ROOM, size=SIZE))
    assert "is packed" in rejection(schema.load_data, config)


def test_a_reader_that_dies_ends_the_training_with_a_line(pictures, tmp_path):
    process = start(pictures, "--workdir", tmp_path / "run", f"--config.data.memory={SOME_ROOM}")
    while not (tmp_path / "run" / "metrics.jsonl").exists():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)
    for worker in workers_of(process.pid):
        os.kill(worker, signal.SIGKILL)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and "a process that reads images has died" in said, said
    assert "Traceback" not in said, said


def test_readers_end_with_a_command_that_is_killed_while_they_begin(pictures, tmp_path):
    process = start(pictures, "--workdir", tmp_path / "run", f"--config.data.memory={SOME_ROOM}")
    while not (left := workers_of(process.pid)):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=60)
    assert_gone(left)


def test_a_reader_that_dies_while_it_begins_ends_the_training_with_a_line(many, tmp_path):
    process = start(many, "--workdir", tmp_path / "run", "--config.data.memory=0.002")
    while not (begun := workers_of(process.pid)):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)
    for worker in begun:
        os.kill(worker, signal.SIGKILL)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and "a process that reads images has died" in said, said
    assert "Traceback" not in said, said


def test_a_signal_while_all_images_are_looked_at_is_one_line(many, tmp_path):
    process = start(many, "--workdir", tmp_path / "run", "--config.data.memory=0.002")
    while not (begun := workers_of(process.pid)):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM and "interrupted" in said, said
    assert "Traceback" not in said and "leaked" not in said, said
    assert_gone(begun)


def late_image(folder):
    """A training image that comes late in each of the next epochs."""
    names = {}
    exec(CONFIG.format(folder=folder), names)
    config = names["get_config"]()
    config.data.memory = SOME_ROOM
    stream, key = schema.load_data(config).stream, training_keys(config).order
    late = [set(epoch_order(key, epoch, 2 * EACH)[EACH:].tolist()) for epoch in (1, 2, 3)]
    return Path(stream.files.name(int(stream.numbers[min(set.intersection(*late))])))


def test_a_file_that_vanishes_loses_no_step_that_was_made(pictures, tmp_path):
    folder, run = tmp_path / "pictures", tmp_path / "run"
    folder.mkdir()
    for path in pictures.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    gone = late_image(folder)
    process = start(folder, "--workdir", run, f"--config.data.memory={SOME_ROOM}")
    while not (run / "metrics.jsonl").exists():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)
    content = gone.read_bytes()
    gone.unlink()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and f"{gone.name}: is not there, and could be" in said, said
    saved = max(int(path.name) for path in (run / "checkpoints").iterdir() if path.name.isdigit())
    assert saved % EACH, said
    gone.write_bytes(content)
    process = start(folder, "--workdir", run)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0 and f" at step {saved} of" in said, said


def test_a_script_that_guards_nothing_is_told(many, tmp_path):
    script = tmp_path / "script.py"
    config = CONFIG.format(folder=many)
    script.write_text(
        f"{config}\nimport jax_kdpr as kdpr\nconfig = get_config()\n"
        f"config.data.memory = 0.002\nkdpr.train(config, 'run')\n"
    )
    environment = commands.user_environment(JAX_PLATFORMS="cpu")
    command = [sys.executable, script]
    ended = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode and "put what it does under if __name__" in ended.stderr
