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
from helpers import assert_equal_trees, rejection, tiny_config

from jax_kdpr.core import signals
from jax_kdpr.core.errors import InputError
from jax_kdpr.runs import checkpoint
from jax_kdpr.runs import folder as run_folder
from jax_kdpr.runs.checkpoint import Checkpoints
from jax_kdpr.runs.run import restore
from jax_kdpr.training import loop, outcome, setup
from jax_kdpr.training.setup import prepare
from jax_kdpr.training.validation import make_validate


@pytest.mark.slow
def test_resuming_is_bit_exact_and_a_finished_run_is_left_alone(tmp_path, monkeypatch):
    config = tiny_config()
    last = loop.train(config, tmp_path / "whole")
    rows = (tmp_path / "whole/metrics.jsonl").read_text()
    assert loop.train(config, tmp_path / "whole") == last
    assert (tmp_path / "whole/metrics.jsonl").read_text() == rows

    # Stopped as by a signal: in the middle of an epoch, and in the validation after the last.
    checks, pending, stops = itertools.count(1), [], 0

    def received():
        if next(checks) % 11 == 0:
            pending.append(signal.SIGTERM)
        return pending[-1] if pending else 0

    monkeypatch.setattr(signals, "received", received)
    while run_folder.epochs_done(tmp_path / "pieces") < config.train.epochs:
        try:
            loop.train(config, tmp_path / "pieces")
        except signals.Interrupted:
            stops += 1
            pending.clear()
    assert stops == 2
    whole, pieces = (restore(tmp_path / name, config) for name in ("whole", "pieces"))
    assert whole.step == pieces.step
    assert_equal_trees(whole.variables, pieces.variables)
    rows = [faults.record(tmp_path / name) for name in ("whole", "pieces")]
    assert rows[0] == rows[1] and len(rows[0]) == config.train.epochs


@pytest.mark.slow
def test_the_running_mean_is_what_is_validated_and_restored(tmp_path):
    config = tiny_config(optim__average=0.9, train__epochs=2, train__devices=1)
    config.data.source = "scenes"
    last = loop.train(config, tmp_path / "run")
    trained = restore(tmp_path / "run", config)
    run = prepare(config, tmp_path / "again")
    found = run.validate(trained.variables)
    assert trained.step == run.total_steps  # the scores rise: the last is the best
    np.testing.assert_allclose(found["validation_psnr"], last["validation_psnr"], atol=1e-3)
    with Checkpoints(tmp_path / "run", read_only=True) as checkpoints:
        live = checkpoints.restore_best({"params": trained.variables[0]}).tree["params"]
    assert not np.allclose(live["phases"], trained.variables[0]["phases"], atol=1e-4)


@pytest.mark.slow
def test_epochs_that_are_not_validated_have_a_row_and_a_checkpoint(tmp_path, monkeypatch, capsys):
    whole, run = tmp_path / "whole", tmp_path / "run"
    loop.train(tiny_config(), whole)
    config, checks = tiny_config(train__validate_every=2), iter([0] * 4)
    with monkeypatch.context() as patch:  # a signal at the end of the first epoch
        patch.setattr(signals, "received", lambda: next(checks, signal.SIGINT))
        with pytest.raises(signals.Interrupted, match="at step 4 of 12, saved"):
            loop.train(config, run)
    assert restore(run, config).step == 4  # without a score there is the newest
    (run / run_folder.METRICS_FILE).unlink()
    capsys.readouterr()
    assert "validation_psnr" in loop.train(config, run)

    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert ["validation" in line for line in said] == [False, True, True]
    found, expected = faults.record(run), faults.record(whole)
    kept = [name for name in expected[0] if not name.startswith("validation")]
    assert found == [{name: expected[0][name] for name in kept}, *expected[1:]]
    best = max(expected[1:], key=lambda row: row["validation_psnr"])
    assert restore(run, config).step == best["step"]


@pytest.mark.slow
def test_a_signal_before_the_first_step_leaves_no_trace(tmp_path, monkeypatch, capsys):
    def train_until_signal(steps: int, says: str) -> list[int]:
        """Runs until a signal that arrives after so many checks for one; returns the epochs."""
        checks = iter([0] * steps)
        with monkeypatch.context() as patch:
            patch.setattr(signals, "received", lambda: next(checks, signal.SIGINT))
            with pytest.raises(signals.Interrupted, match=says):
                loop.train(tiny_config(train__epochs=2), tmp_path)
        return [row["epoch"] for row in run_folder.read_metrics(tmp_path)]

    assert train_until_signal(0, "interrupted before a step was made; run") == []
    assert not list((tmp_path / "checkpoints").iterdir())
    # The four steps of the first epoch: it comes within the validation,
    assert train_until_signal(4, "at step 4 of 8, saved") == []
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["4"]
    # which is made up for: two batches, one check each, and one at the end.
    assert train_until_signal(4, "interrupted") == [1]
    assert "epoch   1/2" in capsys.readouterr().out
    assert train_until_signal(0, "at step 4 of 8, saved") == [1]  # resumed between two epochs


def test_the_best_and_the_latest_two_are_kept_and_made_again_where_later_ones_are_discarded(
    tmp_path,
):
    with Checkpoints(tmp_path) as checkpoints:

        def save(step, value, score=None):
            checkpoints.save(step, {"x": jnp.full(3, value)}, {}, score=score)

        for step, score in ((1, 10.0), (2, 30.0), (3, 20.0), (4, 25.0), (5, None), (6, 26.0)):
            save(step, float(step), score)
        like = {"x": jnp.zeros(3)}
        assert checkpoints.restore_best(like).step == 2
        assert checkpoints.restore_latest(like).step == 6
        assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == [2, 5, 6]
        with pytest.raises(RuntimeError, match="there is a later one"):
            save(4, 0.0)
        checkpoints.discard_after(5)
        save(6, 7.0, score=1.0)
        assert checkpoints.restore_latest(like).tree["x"][0] == 7


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


@pytest.mark.parametrize(("spoilt", "step"), [("loss", 6), ("parameters", 8)])
def test_nothing_that_is_not_finite_is_saved(spoilt, step, tmp_path, monkeypatch):
    """Nor what the last update of an epoch made of a loss that was finite still."""
    made = setup.compile_steps

    def exploding(*args, **kwargs):
        program = made(*args, **kwargs)

        def run(state, epoch):
            state, losses = program(state, epoch)
            if int(state.step) == step and spoilt == "loss":
                losses = losses * jnp.nan
            elif int(state.step) == step:
                params = state.params | {"filter": state.params["filter"] * jnp.nan}
                state = state.replace(params=params)
            return state, losses

        return run

    monkeypatch.setattr(setup, "compile_steps", exploding)
    said = f"at step {step}; last good checkpoint: step 4"
    with pytest.raises(loop.NonFiniteLossError, match=said):
        loop.train(tiny_config(train__epochs=2), tmp_path)
    assert checkpoint.steps(tmp_path) == [4]
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
    nothing = told(grey - 0.1)
    assert "it learned nothing" in nothing and f"{grey - 0.1:.2f} dB" in nothing
    assert f"{grey:.2f} dB" in nothing and "train.epochs" in nothing
    assert "it diverged: the loss is 0.3, " in told(grey - 0.1, train_total=0.3)
    assert "it diverged" in told(grey + 0.1, train_mask=101.0)


def test_a_folder_in_use_is_refused(tmp_path):
    with run_folder.lock(tmp_path), pytest.raises(InputError, match="another process is training"):
        loop.train(tiny_config(), tmp_path)


@pytest.mark.parametrize("left_behind", ["run.json.0123abcd.tmp", "run.lock"])
def test_a_session_killed_before_run_json_was_written_blocks_nothing(tmp_path, left_behind):
    (tmp_path / left_behind).write_text("{")
    run_folder.check_workdir(tmp_path, tiny_config(), {"data": "x"})


def test_a_folder_where_nothing_was_saved_takes_another_config_and_its_files(tmp_path):
    """Stopped while it compiled, for the options were wrong; what was saved is never replaced."""
    workdir, masks = tmp_path / "run", [tmp_path / f"{name}.npy" for name in "ab"]
    for value, file in enumerate(masks):
        np.save(file, np.full((1, 16, 16), 0.5 + value, np.float32))
    first, second = (tiny_config(masks__start="file", masks__file=str(file)) for file in masks)
    for config in (first, second):  # as a training does before its first step
        run = prepare(config, workdir)
        with run_folder.lock(workdir):
            run_folder.record_session(workdir, config, run.digests, run.dataset.sample, run.planes)
    assert run_folder.read_run(workdir)["config"]["masks"]["file"] == str(masks[1])
    np.testing.assert_array_equal(np.load(workdir / "given_masks.npy"), np.load(masks[1]))
    loop.train(second, workdir)
    kept = (workdir / "run.json").read_bytes()
    assert "belongs to another run" in rejection(loop.train, first, workdir)
    assert (workdir / "run.json").read_bytes() == kept


@pytest.mark.parametrize(
    ("name", "content"), [("run.json", '{"somebody": "else"}'), ("masks.npy", "scores of before")]
)
def test_a_folder_with_more_than_the_beginning_of_a_run_is_not_taken(tmp_path, name, content):
    run_folder.record_session(tmp_path, tiny_config(), {"data": "x"})
    run_folder.check_workdir(tmp_path, tiny_config(), {"data": "y"})
    (tmp_path / name).write_text(content)
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    said = rejection(run_folder.check_workdir, tmp_path, tiny_config(), {"data": "y"})
    assert repr(name) in said or name in said.partition(": ")[0], said
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept


# Processes: what a power cut or a batch queue does


@pytest.mark.parametrize(
    ("working", "code", "said"),
    [
        ("pass", 128 + signal.SIGTERM, "interrupted\n"),
        ("signals.set_last_words('go on')", 128 + signal.SIGTERM, "go on\n"),
        ("signals.all_done(3)", 3, ""),
    ],
)
def test_a_signal_after_the_last_line_interrupts_nothing(working, code, said):
    program = (
        "import os, signal, time\n"
        "from jax_kdpr.core import signals\n"
        "signals.take_over()\n"
        f"{working}\n"
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


def test_fewer_validation_images_than_a_batch_are_scored_as_in_whole_ones(tmp_path, monkeypatch):
    config = tiny_config(data__validation_images=6, train__epochs=1)
    sizes = []

    def noted(*given, batch_size, **others):
        sizes.append(batch_size)
        return make_validate(*given, batch_size=batch_size, **others)

    monkeypatch.setattr(setup, "make_validate", noted)
    run = prepare(config, tmp_path / "run")
    few = run.validate(run.start.variables)
    whole = make_validate(
        run.system, run.dataset.validation, batch_size=64, key=run.keys.evaluation
    )(run.start.variables)
    assert 6 <= sizes[0] < 6 + jax.device_count()  # a multiple of the devices
    for name, value in few.items():
        assert value == pytest.approx(whole[name], rel=1e-4), name
