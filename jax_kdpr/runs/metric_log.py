"""Where the metrics of each epoch go: metrics.jsonl always, TensorBoard event files on request."""

import json
from pathlib import Path
from typing import Any

from jax_kdpr.core import whole_files
from jax_kdpr.core.errors import InputError
from jax_kdpr.runs import folder as run_folder


class MetricLog:
    """Rows of metrics of one run folder."""

    def __init__(self, workdir: Path, *, tensorboard: bool = False):
        """Opens the log; for TensorBoard, `require_tensorboard` must have passed."""
        self._workdir = workdir
        self._path = workdir / run_folder.METRICS_FILE
        self._tensorboard = tensorboard
        self._writer: Any = None

    def close(self) -> None:
        """Ends the event files, if any."""
        if self._writer is not None:
            self._writer.close()

    def resume_at(self, step: int) -> None:
        """Drops everything logged for later steps: they are going to be done again."""
        if self._path.exists():
            kept = [row for row in self.rows() if row["step"] <= step]
            whole_files.write_text(self._path, "".join(json.dumps(row) + "\n" for row in kept))
        if self._tensorboard:
            from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]

            folder = str(self._workdir / "tensorboard")
            self._writer = SummaryWriter(folder, purge_step=step + 1)

    def append(self, row: dict[str, Any]) -> None:
        """Adds the row of one epoch."""
        whole_files.append_text(self._path, json.dumps(row) + "\n")
        if self._writer is not None:
            for name, value in row.items():
                self._writer.add_scalar(name, value, row["step"])

    def rows(self) -> list[dict[str, Any]]:
        """Returns every row so far."""
        return run_folder.read_metrics(self._workdir)


def require_tensorboard() -> None:
    """Raises `InputError` unless tensorboardX can be imported."""
    try:
        import tensorboardX  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as missing:
        raise InputError(
            "train.tensorboard: tensorboardX is not installed; pip install -e '.[tensorboard]' "
            "or leave it False"
        ) from missing
