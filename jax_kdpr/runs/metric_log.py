"""Logs the metrics of each epoch: metrics.jsonl, on request TensorBoard and Weights & Biases."""

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

from jax_kdpr.core import whole_files
from jax_kdpr.core.errors import InputError, StoppedError, reason
from jax_kdpr.runs import folder as run_folder

MODULES = {"tensorboard": "tensorboardX", "wandb": "wandb"}  # by extra = option of train.*
PROJECT = "jax_kdpr"  # at Weights & Biases


class MetricLog:
    """The rows of metrics of one run folder."""

    def __init__(self, workdir: Path, *, tensorboard: bool = False, wandb: bool = False):
        """Opens the log; call `require_loggers` first."""
        self._workdir = workdir
        self._path = workdir / run_folder.METRICS_FILE
        self._tensorboard, self._wandb = tensorboard, wandb
        self._writer: Any = None  # of TensorBoard
        self._online: Any = None  # run of Weights & Biases

    def close(self) -> None:
        """Closes the loggers that were opened."""
        if self._writer is not None:
            self._writer.close()
        if self._online is not None:
            self._online.finish()

    def resume_at(self, step: int) -> None:
        """Drops everything logged for later steps, which are going to be made again."""
        if self._path.exists():
            kept = [row for row in self.rows() if row["step"] <= step]
            whole_files.write_text(self._path, "".join(json.dumps(row) + "\n" for row in kept))
        if self._tensorboard:
            from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]

            folder = str(self._workdir / "tensorboard")
            self._writer = SummaryWriter(folder, purge_step=step + 1)
        if self._wandb:
            self._online = _open_wandb(self._workdir)

    def append(self, row: dict[str, Any]) -> None:
        """Adds the row of one epoch."""
        whole_files.append_text(self._path, json.dumps(row) + "\n")
        if self._writer is not None:
            for name, value in row.items():
                self._writer.add_scalar(name, value, row["step"])
        if self._online is not None:
            self._online.log(row)

    def rows(self) -> list[dict[str, Any]]:
        """Returns every row so far."""
        return run_folder.read_metrics(self._workdir)


def require_loggers(**wanted: bool) -> None:
    """Raises `InputError` if the package of a requested logger is not installed."""
    for name, is_wanted in wanted.items():
        if is_wanted and importlib.util.find_spec(MODULES[name]) is None:
            raise InputError(
                f"train.{name}: {MODULES[name]} is not installed; pip install -e '.[{name}]' or "
                "leave it False"
            )


def _open_wandb(workdir: Path) -> Any:
    """Opens or resumes the online run of a folder; WANDB_MODE and the like are left to the user."""
    import wandb  # pyright: ignore[reportMissingImports]

    record, place = run_folder.read_run(workdir), str(workdir.resolve())
    begun = f"{place} {record['sessions'][0]['time']}"
    try:
        online = wandb.init(
            project=PROJECT,
            name=workdir.name,
            id=hashlib.sha256(begun.encode()).hexdigest()[:16],  # the same when the run is resumed
            resume="allow",
            dir=place,
            config=record["config"],
        )
    except wandb.errors.Error as failure:
        raise StoppedError(
            f"train.wandb: {reason(failure)}; wandb login, or WANDB_MODE=offline, or leave it False"
        ) from failure
    online.define_metric("*", step_metric="step")  # epochs that are made again appear twice
    return online
