"""The pages below docs/reference that are made of the package: options, commands, and the API.

They are written when the site is built (conf.py), and are not kept: `python -m jax_kdpr.COMMAND
--help` says the same of options and commands.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

from jax_kdpr.core.tables import markdown_table
from jax_kdpr.interface.help_page import options_sections
from jax_kdpr.runs import pretrained

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "jax_kdpr"
# Sections of options, by the page that has them; what is named nowhere goes to the last one.
OPTION_PAGES = {
    "data": ("The run, data and scenes", ("", "data", "scene")),
    "bench": (
        "Light, mask, bench and camera",
        (
            *("masks", "device", "illumination", "aberrations", "propagation", "sensor"),
            *("noise", "jitter", "mount"),
        ),
    ),
    "training": ("Recovery, losses and training", ()),
}

# Modules without a page here: of the front page, of Matplotlib, of PyTorch, and flags.
LEFT_OUT = (
    "core/figures",
    "evaluation/speed/torch_twin",
    *(f"interface/{name}" for name in ("api", "run", "cli", "help_page")),
)
WRITTEN: set[Path] = set()  # pages of this build


def write(folder: Path) -> None:
    """Writes options/, commands/, api/ and the cards of trained systems below a folder."""
    earlier = {
        path for name in ("options", "commands", "api") for path in (folder / name).glob("*")
    }
    _write_options(folder / "options")
    _write_commands(folder / "commands")
    _write_api(folder / "api")
    _write(folder / "pretrained_cards.md", _cards())
    for path in earlier - WRITTEN:
        path.unlink()


def _cards() -> str:
    """A section for each trained system that comes with the package."""
    parts = []
    for name in pretrained.names():
        card = pretrained.read_card(name)
        scores = card["scores"]
        shown = {"recovered": "network", "spectral_estimate": "its input alone, true global phase"}
        shown |= {"mean_image": "mean training image"}
        rows = [
            [
                words,
                f"{scores[key]['psnr']:.2f} ± {scores[key]['psnr_error']:.2f}",
                f"{scores[key]['ssim']:.3f} ± {scores[key]['ssim_error']:.3f}",
                f"{scores[key]['rms']:.3f}",
            ]
            for key, words in shown.items()
        ]
        megabytes = (pretrained.FOLDER / f"{name}{pretrained.ENDING}").stat().st_size / 1e6
        parts += [
            f"### {name}",
            f"{card['says']} {card['limits']}",
            markdown_table(["answer", "PSNR (dB)", "SSIM", "rms over the object (rad)"], rows),
            f"{card['test_images']:,} test images of source `{card['data']}`; seed {card['seed']}; "
            f"commit {card['commit']}; {card['device']}, {card['seconds'] / 60:.0f} minutes for "
            f"the last training; {megabytes:.1f} MB. Trained by:",
            "```text\n" + "\n".join(card["commands"]) + "\n```",
        ]
    return "\n\n".join(parts) + "\n"


def _write(path: Path, text: str) -> None:
    """Leaves a page that says the same as it is, so that Sphinx need not read it again."""
    WRITTEN.add(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def _write_options(folder: Path) -> None:
    sections = options_sections()
    listed = {name for _, names in OPTION_PAGES.values() for name in names}
    for page, (title, names) in OPTION_PAGES.items():
        wanted = names or [name for name in sections if name not in listed]
        tables = [sections[name] for name in wanted if name in sections]
        _write(folder / f"{page}.md", "\n\n".join([f"# {title}", *tables]) + "\n")


def _write_commands(folder: Path) -> None:
    """A page for each command: what `--help` prints, without the options of a config."""
    names = sorted(path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("_"))
    program = (
        "import sys, runpy; from absl import flags; name = sys.argv[1]; "
        "sys.argv = [name, '--help']; runpy.run_module(name, run_name='__main__', alter_sys=True)"
    )
    running = {
        name: subprocess.Popen(
            [sys.executable, "-c", program, f"jax_kdpr.{name}"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in names
    }
    for name, process in running.items():
        printed, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"jax_kdpr.{name} --help failed")
        said, _, rest = printed.partition("\nFlags:\n")
        own, _, config = rest.partition("  --config FILE: ")
        more = (
            "\n\nIt also takes `--config FILE` and every [option](../options.md)." if config else ""
        )
        table = _flags_table(own)
        _write(
            folder / f"{name}.md",
            f"# {name}\n\n```text\n{said.strip()}\n```\n\n## Flags\n\n{table}{more}\n",
        )


def _flags_table(text: str) -> str:
    found = re.findall(r"^  --(\w+): (.*(?:\n(?!  --).*)*)", text, re.MULTILINE)
    rows = [[f"`--{name}`", _escaped(" ".join(meaning.split()))] for name, meaning in found]
    return markdown_table(["flag", "meaning"], rows)


def _escaped(text: str) -> str:
    return re.sub(r"([<>*\[\]$])", r"\\\1", text)


def _write_api(folder: Path) -> None:
    """A page for each subpackage of the package, and one for each of its modules."""
    front = (
        "# `import jax_kdpr`\n\nWhat the package itself offers. Below it are the subpackages.\n\n"
        "```{eval-rst}\n.. automodule:: jax_kdpr.interface.api\n"
        "   :members: load, pretrained, bench, on_bench, train\n\n"
        ".. automodule:: jax_kdpr.interface.run\n   :members: Run, Objects\n\n"
        ".. autofunction:: jax_kdpr.solve\n\n"
        ".. autoclass:: jax_kdpr.Refinement\n   :members:\n```\n"
    )
    _write(folder / "jax_kdpr.md", front)
    subpackages = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))
    for subpackage in subpackages:
        modules = sorted(path for path in subpackage.rglob("*.py") if path.stem != "__init__")
        pages = []
        for module in modules:
            name = module.relative_to(PACKAGE).with_suffix("").as_posix()
            if name in LEFT_OUT or name.endswith("_flags"):
                continue
            dotted = ".".join(module.relative_to(ROOT).with_suffix("").parts)
            pages.append((dotted, _first_line(module)))
            directive = f"```{{eval-rst}}\n.. automodule:: {dotted}\n   :members:\n```"
            _write(folder / f"{dotted}.md", f"# `{dotted}`\n\n{directive}\n")
        said = _first_line(subpackage / "__init__.py")
        rows = [
            [f"[{name.removeprefix('jax_kdpr.')}]({name}.md)", _escaped(line)]
            for name, line in pages
        ]
        table = markdown_table(["module", "what lives there"], rows)
        # Not in a table of contents, which every page of the site would carry.
        _write(folder / f"{subpackage.name}.md", f"# `{subpackage.name}`\n\n{said}\n\n{table}\n")


def _first_line(path: Path) -> str:
    said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return said.partition("\n\n")[0].replace("\n", " ")
