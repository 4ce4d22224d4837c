"""Runs `kdpr COMMAND ...` and `python -m jax_kdpr COMMAND ...`; without a command, lists them."""

import ast
import difflib
import os
import runpy
import sys
from pathlib import Path

from jax_kdpr.core import signals

HERE = Path(__file__).parent


def main() -> int:
    """Runs the command that the first argument names, as `python -m jax_kdpr.COMMAND` does."""
    signals.take_over()
    commands = sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_"))
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help", "help"):
        print("Usage: kdpr COMMAND [--help] ..., or python -m jax_kdpr.COMMAND\n")
        for command in commands:
            print(f"  {command:<16}{_first_sentence(HERE / f'{command}.py')}")
        return 0
    if name not in commands:
        near = difflib.get_close_matches(name, commands, n=1)
        hint = f"did you mean {near[0]}?" if near else f"commands: {', '.join(commands)}"
        print(f"error: no command {name!r}; {hint}", file=sys.stderr)
        return 2
    sys.path.insert(0, os.getcwd())  # for code of the user's own, as `python -m` does
    sys.argv = [f"jax_kdpr.{name}", *sys.argv[2:]]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    return 0


def _first_sentence(path: Path) -> str:
    """Returns the first sentence of a command's docstring, without importing the command."""
    said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return said.partition(":")[0].partition(".\n")[0].replace("\n", " ").rstrip(".")


if __name__ == "__main__":
    sys.exit(main())
