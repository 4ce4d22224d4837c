"""The site: `bash launch/docs.sh` makes it, of docs/, results/ and CHANGELOG.md, in build/docs.

The folder of the sources is the root of the repository, so that one link to a report or to a config
leads there on the site and in a plain view of the files alike.
"""

import inspect
import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs"), str(ROOT / "tests")]

import generated_pages  # noqa: E402 (of this folder: pages made of the package)
from compiling import QUICKLY_COMPILED  # noqa: E402

project = "jax_kdpr"
author = "The jax_kdpr authors"
copyright = "2026, the jax_kdpr authors"
root_doc = "docs/index"
include_patterns = ["docs/**", "results/**.md", "CHANGELOG.md"]
exclude_patterns = [
    "docs/reference/pretrained_cards.md",  # included
    *(name for name in os.listdir(ROOT) if name not in ("docs", "results", "CHANGELOG.md")),
    "docs/gallery/*.md",
    "docs/examples/*.ipynb",
    "docs/examples/*.py",
    "docs/examples/*.md5",
]
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "sphinx-mathjax-offline",  # a lab may have no network
]
highlight_language = "none"
html_theme = "sphinx_book_theme"
html_title = "jax_kdpr"
html_theme_options = {"show_navbar_depth": 1, "home_page_in_toc": False}
html_static_path = ["static"]
html_css_files = ["site.css"]
# Reports are made by commands: their headings are theirs, and no table of contents lists them.
# Python's types have the names of fields of ours here and there ("bytes").
suppress_warnings = ["myst.header", "toc.not_included", "ref.python"]

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4  # as GitHub names them
nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / "build" / "notebooks")
nb_execution_raise_on_error = True
nb_execution_timeout = 900
nb_execution_in_temp = True  # and leaves nothing beside the pages
copybutton_exclude = ".linenos, .gp"

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 72  # else each argument has a line of its own
default_role = "code"

sphinx_gallery_conf = {
    "examples_dirs": str(ROOT / "docs" / "gallery"),
    "gallery_dirs": str(ROOT / "docs" / "examples"),
    "filename_pattern": r"/plot_",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "write_computation_times": False,
    "min_reported_time": 0,
}


def escaped(app, what, name, obj, options, lines):
    """Leaves of a docstring, which is plain text, `code` as the only mark-up."""
    if lines and lines[0].startswith("Alias for field number"):
        lines[:] = [_comment_of_field(name), ""]
    for number, line in enumerate(lines):
        parts = re.split(r"(`[^`]*`)", line)
        parts[::2] = [
            re.sub(r"(?<!^)(?<!\s\s)[*|]|_(?!\w)", r"\\\g<0>", part) for part in parts[::2]
        ]
        lines[number] = "".join(parts)


def shortened(app, what, name, obj, options, signature, returned):
    """Names NumPy's union of all that is like an array."""
    union = r"[\w.~]*_Buffer \|.*?_NestedSequence\[complex \| bytes \| str\]"
    return signature and re.sub(union, "ArrayLike", signature), returned


def _comment_of_field(name):
    """Returns what stands behind a field of a NamedTuple in its source; "" if nothing does."""
    module, owner, field = name.rsplit(".", 2)
    source = inspect.getsource(getattr(sys.modules[module], owner))
    found = re.search(rf"^    {field}: [^#\n]*#\s*(.*)$", source, re.MULTILINE)
    return found[1] if found else ""


def setup(app):
    """Writes the pages of docs/reference that are made of the package."""
    app.connect("autodoc-process-docstring", escaped, priority=400)  # before napoleon
    app.connect("autodoc-process-signature", shortened)
    app.connect("builder-inited", lambda _: generated_pages.write(ROOT / "docs" / "reference"))
    if "XLA_FLAGS" not in os.environ:
        os.environ["XLA_FLAGS"] = QUICKLY_COMPILED  # read once, by the first script
        app.connect("env-before-read-docs", lambda *_: os.environ.pop("XLA_FLAGS", None))
