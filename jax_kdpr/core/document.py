"""A report that grows block by block, as Markdown and as one self-contained HTML page."""

import base64
import html
import re
from pathlib import Path
from typing import Any

from jax_kdpr.core import whole_files
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


class Document:
    """A report; all that is added to it appears in both the Markdown and the HTML."""

    def __init__(self, folder: Path, title: str):
        self.folder, self.title = folder, title
        self.markdown: list[str] = []
        self.html: list[str] = []
        self.figures: list[str] = []  # files of its pictures
        self.heading(title, level=1)

    def heading(self, text: str, *, level: int = 2) -> None:
        """Adds a heading; level 1 is the title of the page."""
        self.markdown.append(f"{'#' * level} {text}")
        self.html.append(f"<h{level}>{html.escape(text)}</h{level}>")

    def paragraph(self, text: str) -> None:
        """Adds plain text."""
        self.markdown.append(text)
        self.html.append(f"<p>{html.escape(text)}</p>")

    def table(self, header: list[str], rows: list[list[Any]]) -> None:
        """Adds a table."""
        self.markdown.append(markdown_table(header, rows))
        head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
        body = "\n".join(f"<tr>{''.join(map(_cell, cells))}</tr>" for cells in rows)
        self.html.append(f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>")

    def picture(self, file: str, caption: str) -> None:
        """Adds a PNG file of the folder: as a link in Markdown, embedded in the page in HTML."""
        self.figures.append(file)
        self.markdown.append(f"![{caption}]({file})")
        data = base64.b64encode((self.folder / file).read_bytes()).decode()
        alt = html.escape(caption, quote=True)
        self.html.append(f'<p><img src="data:image/png;base64,{data}" alt="{alt}"></p>')

    def write(self) -> None:
        """Writes report.md and report.html."""
        page = (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width">'
            f"<title>{html.escape(self.title)}</title><style>{STYLE}</style></head>\n<body>\n"
            + "\n".join(self.html)
            + "\n</body></html>\n"
        )
        whole_files.write_text(self.folder / "report.md", "\n\n".join(self.markdown) + "\n")
        whole_files.write_text(self.folder / "report.html", page)


def _cell(value: Any) -> str:
    """Makes a table cell; one that begins with a number, as "-1.2 ± 0.3", is not wrapped."""
    text = str(value)
    kind = ' class="number"' if len(text) <= 40 and re.match(r"[+-]?\d", text) else ""
    return f"<td{kind}>{html.escape(text)}</td>"
