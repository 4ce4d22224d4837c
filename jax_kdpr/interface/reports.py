"""The report of a command: NAME.json, NAME.md and NAME.png in one folder."""

from pathlib import Path
from typing import Any, NamedTuple

from jax_kdpr.core import json_files, whole_files
from jax_kdpr.interface import cli


class Report(NamedTuple):
    """Where a report goes; by its JSON, which is written first, a command knows its own."""

    folder: Path
    name: str

    def require_own(self, shape: json_files.Shape, *, command: str) -> None:
        """Refuses a folder that holds other files of these names; raises as `require_own`."""
        json_files.require_own(
            *("--output", self.folder / f"{self.name}.json", shape),
            command=command,
            beside=(f"{self.name}.md", f"{self.name}.png"),
        )

    def make_folder(self) -> None:
        """Makes the folder, before the long part; raises as `cli.make_folder`."""
        cli.make_folder("--output", self.folder)

    def write(self, record: dict[str, Any], text: str) -> None:
        """Writes the numbers and the tables."""
        json_files.write_json(self.folder / f"{self.name}.json", record)
        whole_files.write_text(self.folder / f"{self.name}.md", text + "\n")

    @property
    def picture(self) -> Path:
        """Where its figure goes."""
        return self.folder / f"{self.name}.png"
