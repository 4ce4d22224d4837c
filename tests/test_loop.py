"""The loop: a resumed run is the same run, and nothing spoilt is ever saved."""

import itertools
import signal
import subprocess
import sys
import time

import faults
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_equal_trees, tiny_config

from jax_kdpr.core import signals
from jax_kdpr.core.errors import InputError
from jax_kdpr.runs import checkpoint
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.checkpoint import Checkpoints
from jax_kdpr.runs.run import restore
from jax_kdpr.training import loop, outcome
from jax_kdpr.training.setup import prepare


def restored_tree(workdir, config):
    trained = restore(workdir, config)
    return trained.variables, trained.step


@pytest.mark.slow
def test_resuming_after_each_epoch_is_bit_exact(tmp_path, monkeypatch):
    config = tiny_config()
    loop.train(config, tmp_path / "whole")

    # Stopped as by a signal: in the middle of an epoch, and in the validation after the last.
    checks = itertools.count(1)

    pending = []

    def received():
        if next(checks) % 11 == 0:
            pending.append(signal.SIGTERM)
        return pending[-1] if pending else 0

    monkeypatch.setattr(signals, "received", received)
    stops = 0
    while True:
        try:
            loop.train(config, tmp_path / "pieces")
            break
        except signals.Interrupted:
            stops += 1
            pending.clear()
    assert stops == 2
    whole, pieces = (restored_tree(tmp_path / name, config) for name in ("whole", "pieces"))
    assert_equal_trees(whole, pieces)
    without_times = [
        [
            {name: value for name, value in row.items() if "seconds" not in name}
            for row in run_folder.read_metrics(tmp_path / name)
        ]
        for name in ("whole", "pieces")
    ]
    assert without_times[0] == without_times[1] and len(without_times[0]) == config.train.epochs


@pytest.mark.slow
def test_the_running_mean_is_what_is_validated_and_restored(tmp_path):
    config = tiny_config(optim__average=0.9, train__epochs=2, train__devices=1)
    config.data.source = "scenes"
    last = loop.train(config, tmp_path / "run")
    trained = restore(tmp_path / "run", config)
    run = prepare(config, tmp_path / "again")
    scores, _ = run.eval_step(
        trained.variables, run.dataset.validation, jnp.arange(32), jax.random.key(0)
    )
    assert trained.step == run.total_steps  # the scores rise: the last is the best
    np.testing.assert_allclose(jnp.mean(scores.psnr), last["validation_psnr"], atol=1e-3)
    with Checkpoints(tmp_path / "run", read_only=True) as checkpoints:
        live = checkpoints.restore_best({"params": trained.variables[0]}).tree["params"]
    assert not np.allclose(live["phases"], trained.variables[0]["phases"], atol=1e-4)


@pytest.mark.slow
def test_the_loop_runs_on_four_devices(tmp_path):
    one = loop.train(tiny_config(train__epochs=1, train__devices=1), tmp_path / "one")
    four = loop.train(tiny_config(train__epochs=1, train__devices=4), tmp_path / "four")
    np.testing.assert_allclose(four["validation_psnr"], one["validation_psnr"], atol=0.05)


@pytest.mark.slow
def test_a_signal_before_the_first_step_leaves_no_trace(tmp_path, monkeypatch, capsys):
    config = tiny_config(train__epochs=2)

    def train_until_signal(steps: int, says: str):
        """Runs until a signal that arrives after so many checks for one."""
        checks = iter([0] * steps)
        with monkeypatch.context() as patch:
            patch.setattr(signals, "received", lambda: next(checks, signal.SIGINT))
            with pytest.raises(signals.Interrupted, match=says):
                loop.train(config, tmp_path)

    train_until_signal(0, "interrupted before a step was made; run")
    assert run_folder.read_metrics(tmp_path) == []
    assert not list((tmp_path / "checkpoints").iterdir())
    train_until_signal(
        4, "at step 4 of 8, saved"
    )  # the four steps of the first epoch: it comes within the validation
    assert run_folder.read_metrics(tmp_path) == []
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["4"]
    train_until_signal(
        4, "interrupted"
    )  # which is made up for: two batches, one check each, and one at the end
    assert "epoch   1/2" in capsys.readouterr().out
    assert [row["epoch"] for row in run_folder.read_metrics(tmp_path)] == [1]
    train_until_signal(0, "at step 4 of 8, saved")  # resumed between two epochs
    assert [row["epoch"] for row in run_folder.read_metrics(tmp_path)] == [1]


@pytest.mark.slow
def test_a_finished_run_is_left_alone(tmp_path):
    config = tiny_config(train__epochs=1)
    first = loop.train(config, tmp_path)
    rows = (tmp_path / "metrics.jsonl").read_text()
    assert loop.train(config, tmp_path) == first
    assert (tmp_path / "metrics.jsonl").read_text() == rows


def test_best_checkpoint_is_kept_beside_the_latest_two(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step, score in ((1, 10.0), (2, 30.0), (3, 20.0), (4, 25.0), (5, None), (6, 26.0)):
            checkpoints.save(step, {"x": jnp.full(3, float(step))}, {}, score=score)
        like = {"x": jnp.zeros(3)}
        assert checkpoints.restore_best(like).step == 2
        assert checkpoints.restore_latest(like).step == 6
        assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == [2, 5, 6]


def test_checkpoint_keeps_types_and_values(tmp_path):
    tree = {
        "a": jnp.arange(3, dtype=jnp.int32),
        "b": {"c": jnp.asarray([1 + 2j], jnp.complex64), "d": jnp.asarray(0.1)},
    }
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(7, tree, {"seed": 1}, score=1.0)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        restored = checkpoints.restore_latest(jax.eval_shape(lambda: tree))
    assert_equal_trees(tree, restored.tree)
    assert jax.tree.map(lambda x: x.dtype, tree) == jax.tree.map(lambda x: x.dtype, restored.tree)


def test_non_finite_loss_stops_and_names_the_last_good_checkpoint(tmp_path, monkeypatch):
    config = tiny_config(train__epochs=2)
    made = loop.compile_steps

    def exploding(*args, **kwargs):
        step = made(*args, **kwargs)

        def run(state, epoch):
            poisoned = int(state.step) == 5  # in the second epoch of four steps each
            state, losses = step(state, epoch)
            return state, losses * jnp.nan if poisoned else losses

        return run

    monkeypatch.setattr(loop, "compile_steps", exploding)
    with pytest.raises(loop.NonFiniteLossError, match=r"at step 6; last good checkpoint: step 4"):
        loop.train(config, tmp_path)
    assert max(checkpoint.steps(tmp_path)) == 4


def test_parameters_spoilt_by_the_last_update_are_never_saved(tmp_path, monkeypatch):
    config = tiny_config(train__epochs=2)
    made = loop.compile_steps

    def spoiling(*args, **kwargs):
        step = made(*args, **kwargs)

        def run(state, epoch):
            last = int(state.step) == 7  # of the second epoch: its loss is finite still
            state, losses = step(state, epoch)
            if last:
                spoilt = state.params | {"filter": state.params["filter"] * jnp.nan}
                state = state.replace(params=spoilt)
            return state, losses

        return run

    monkeypatch.setattr(loop, "compile_steps", spoiling)
    with pytest.raises(loop.NonFiniteLossError, match=r"at step 8; last good checkpoint: step 4"):
        loop.train(config, tmp_path)
    assert [row["step"] for row in run_folder.read_metrics(tmp_path)] == [4]


def test_a_run_that_diverged_or_learned_nothing_is_told_so(tmp_path):
    run = prepare(tiny_config(loss__rho=0.1), tmp_path)
    images = np.asarray(run.dataset.validation[:16], np.float64)
    images = images / 255 if run.dataset.validation.dtype == np.uint8 else images
    grey = -10 * np.log10(np.var(images))
    sane = {"train_total": 0.1, "train_task": 0.1, "train_mask": 0.0}

    def told(pooled: float, **last: float) -> str:
        return outcome.warning(run, [sane, sane | {"validation_psnr_pooled": pooled} | last])

    assert told(grey + 0.1) == "" == told(grey + 0.1, train_total=0.3)
    assert told(grey - 0.1) == (
        "it learned nothing: the pooled PSNR of the validation images is "
        f"{grey - 0.1:.2f} dB, and that of one grey for all their pixels {grey:.2f} dB; raise "
        "train.epochs"
    )
    assert "it diverged: the loss is 0.3, " in told(grey - 0.1, train_total=0.3)
    assert "it diverged" in told(grey + 0.1, train_mask=101.0)


@pytest.mark.slow
def test_a_teacher_of_another_split_or_unfinished_is_refused(tmp_path):
    """Its training may have seen what the student is scored on; its checkpoint may still change."""
    teacher = tiny_config(train__epochs=1, data__seed=1)
    loop.train(teacher, tmp_path / "teacher")
    student = tiny_config(train__epochs=1, distill__teacher=str(tmp_path / "teacher"))
    student.regime, student.loss.alpha = "student", 0.9
    with pytest.raises(InputError, match="other validation or test images"):
        loop.prepare(student, tmp_path / "student")
    student.data.seed = 1
    student.data.train_images = 48  # fewer of the same: the held-back images are what counts
    assert loop.prepare(student, tmp_path / "student").teacher is not None
    (tmp_path / "teacher/metrics.jsonl").unlink()
    with pytest.raises(InputError, match="finished 0 of 1 epochs"):
        loop.prepare(student, tmp_path / "student")


def test_a_folder_in_use_is_refused(tmp_path):
    with run_folder.lock(tmp_path), pytest.raises(InputError, match="another process is training"):
        loop.train(tiny_config(), tmp_path)


@pytest.mark.parametrize("left_behind", ["run.json.tmp", "run.lock"])
def test_a_session_killed_before_run_json_was_written_blocks_nothing(tmp_path, left_behind):
    (tmp_path / left_behind).write_text("{")
    run_folder.check_workdir(tmp_path, tiny_config(), {"data": "x"})


# Processes: what a power cut or a batch queue does


@pytest.mark.parametrize(
    ("working", "code", "said"), [("pass", 128 + signal.SIGTERM, "interrupted\n"), ("", 3, "")]
)
def test_a_signal_after_the_last_line_interrupts_nothing(working, code, said):
    program = (
        "import os, signal, time\n"
        "from jax_kdpr.core import signals\n"
        "signals.take_over()\n"
        f"{working or 'signals.all_done(3)'}\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "time.sleep(30)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, said)


@pytest.mark.slow
def test_a_signal_saves_and_leaves(tmp_path):
    run = tmp_path / "run"
    process = faults.start(tmp_path, "run", "--config.train.epochs=200")
    while not faults.record(run):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "saved; run the same command again" in messages
    step = max(int(path.name) for path in (run / "checkpoints").iterdir())
    assert step >= faults.record(run)[-1]["step"]
