"""A report as a list of blocks, written as Markdown and as one self-contained HTML page."""

import base64
import html
import re
from pathlib import Path
from typing import Any, NamedTuple

from jax_kdpr.core.tables import markdown_table

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a; background: #fff; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 0.9rem; display: block;
  overflow-x: auto; }
th, td { padding: 0.3rem 0.7rem; border-bottom: 1px solid #ddd; text-align: left; }
th { border-bottom: 2px solid #888; } img { max-width: 100%; }
td.number { white-space: nowrap; }
code { background: #f3f3f3; padding: 0 0.2rem; }
"""


class Heading(NamedTuple):
    """A title; level 1 is the page's."""

    text: str
    level: int = 2


class Paragraph(NamedTuple):
    """Plain text."""

    text: str


class Grid(NamedTuple):
    """A table."""

    header: list[str]
    rows: list[list[Any]]


class Picture(NamedTuple):
    """A PNG that lies beside the report."""

    file: str
    caption: str


Block = Heading | Paragraph | Grid | Picture


def to_markdown(blocks: list[Block]) -> str:
    """Lays the blocks out as Markdown; pictures are links to the files beside it."""
    parts = []
    for block in blocks:
        match block:
            case Heading(text, level):
                parts.append(f"{'#' * level} {text}")
            case Paragraph(text):
                parts.append(text)
            case Grid(header, rows):
                parts.append(markdown_table(header, rows))
            case Picture(file, caption):
                parts.append(f"![{caption}]({file})")
    return "\n\n".join(parts) + "\n"


def to_html(blocks: list[Block], folder: Path, *, title: str) -> str:
    """Lays the blocks out as one page that needs no other file: pictures are inside it."""
    parts = []
    for block in blocks:
        match block:
            case Heading(text, level):
                parts.append(f"<h{level}>{html.escape(text)}</h{level}>")
            case Paragraph(text):
                parts.append(f"<p>{html.escape(text)}</p>")
            case Grid(header, rows):
                parts.append(_table(header, rows))
            case Picture(file, caption):
                data = base64.b64encode((folder / file).read_bytes()).decode()
                alt = html.escape(caption, quote=True)
                parts.append(f'<p><img src="data:image/png;base64,{data}" alt="{alt}"></p>')
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _table(header: list[str], rows: list[list[Any]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "\n".join(f"<tr>{''.join(map(_cell, cells))}</tr>" for cells in rows)
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    """Numbers stay on one line: "-1.2 ± 0.3" is one."""
    text = str(value)
    kind = ' class="number"' if len(text) <= 40 and re.match(r"[+-]?\d", text) else ""
    return f"<td{kind}>{html.escape(text)}</td>"
