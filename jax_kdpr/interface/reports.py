"""The report of a command: NAME.json, NAME.md and NAME.png in one folder."""

from pathlib import Path
from typing import Any, NamedTuple

from jax_kdpr.core import json_files, whole_files
from jax_kdpr.interface import cli


class Report(NamedTuple):
    """The files of a report; a command knows its own by the JSON, which is written first."""

    folder: Path
    name: str

    def require_own(self, shape: json_files.Shape, *, command: str) -> None:
        """Refuses a folder with other files of these names; raises as `json_files.require_own`."""
        json_files.require_own(
            *("--output", self.folder / f"{self.name}.json", shape),
            command=command,
            beside=(f"{self.name}.md", f"{self.name}.png"),
        )

    def make_folder(self) -> None:
        """Makes the folder, before the long computation; raises as `cli.make_folder`."""
        cli.make_folder("--output", self.folder)

    def write(self, record: dict[str, Any], text: str) -> None:
        """Writes the numbers and the tables."""
        json_files.write_json(self.folder / f"{self.name}.json", record)
        whole_files.write_text(self.folder / f"{self.name}.md", text + "\n")

    @property
    def picture(self) -> Path:
        """Path of the report's figure."""
        return self.folder / f"{self.name}.png"
