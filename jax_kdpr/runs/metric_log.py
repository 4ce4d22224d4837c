"""Where the metrics of each epoch go: metrics.jsonl always, TensorBoard event files on request."""

from pathlib import Path
from typing import Any

from jax_kdpr.core.errors import InputError
from jax_kdpr.runs import folder as run_folder


class MetricLog:
    """Rows of metrics of one run folder. Close it, or use it as a context."""

    def __init__(self, workdir: Path, *, tensorboard: bool = False):
        """Opens the log; for TensorBoard, `require_tensorboard` must have passed."""
        self._workdir = workdir
        self._tensorboard = tensorboard
        self._writer: Any = None

    def __enter__(self) -> "MetricLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the event files, if any."""
        if self._writer is not None:
            self._writer.close()

    def resume_at(self, step: int) -> None:
        """Drops everything logged for later steps: they are going to be done again."""
        run_folder.drop_metrics_after(self._workdir, step)
        if self._tensorboard:
            from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]

            folder = str(self._workdir / "tensorboard")
            self._writer = SummaryWriter(folder, purge_step=step + 1)

    def append(self, row: dict[str, Any]) -> None:
        """Adds the row of one epoch."""
        run_folder.append_metrics(self._workdir, row)
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
