"""Trained systems that come with the package; each becomes a run folder when it is first used.

`trained/NAME.tar.gz` is a run in its reduced form (`runs.reduced`). `trained/NAME.json` is its
card, which says how it was trained and how it scores. `trained/NAME/`, if there is one, holds
frames to try it on, as `simulate_bench` makes them.
"""

import atexit
import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

from jax_kdpr.core import json_files, runtime, whole_files
from jax_kdpr.core.errors import InputError
from jax_kdpr.runs import reduced

FOLDER = Path(__file__).parent / "trained"
ENDING = ".tar.gz"
CARD = {
    **{"says": str, "limits": str, "commands": [str], "commit": str, "device": str},
    **{"seconds": float, "seed": int, "data": str, "test_images": int},
    "scores": {
        str: dict.fromkeys(("psnr", "psnr_error", "ssim", "ssim_error", "rms"), float),
    },
}


def names() -> list[str]:
    """Returns the names of all systems."""
    return sorted(path.name.removesuffix(ENDING) for path in FOLDER.glob(f"*{ENDING}"))


def read_card(name: str) -> dict[str, Any]:
    """Returns the card of a system, of the shape `CARD`; raises like `workdir`."""
    return json_files.read_json(_file(name).with_name(f"{name}.json"), CARD, remedy="install anew")


def workdir(name: str) -> Path:
    """Returns the run folder of a system, in the user's cache (`XDG_CACHE_HOME`, or ~/.cache).

    If the cache cannot be written to, a new temporary folder takes its place each time.

    Raises:
        InputError: If there is no such system.
    """
    file = _file(name)
    if (cache := runtime.user_cache()) is None:
        cache = Path(tempfile.mkdtemp())
        atexit.register(shutil.rmtree, cache, ignore_errors=True)
    place = cache / f"{name}-{hashlib.sha256(file.read_bytes()).hexdigest()[:12]}"
    if place.is_dir():
        return place
    cache.mkdir(parents=True, exist_ok=True)
    with whole_files.staging(cache) as staged:
        reduced.unpack(file, staged / name)
        try:
            (staged / name).rename(place)  # complete, or not there
        except OSError:
            if not place.is_dir():  # else another process was faster
                raise
    return place


def example(name: str) -> Path:
    """Returns the folder of frames to try a system on.

    Raises:
        InputError: If there is no such system, or it comes without frames.
    """
    folder = _file(name).with_name(name)
    if not folder.is_dir():
        having = ", ".join(one for one in names() if (FOLDER / one).is_dir())
        raise InputError(
            f"--pretrained: no frames came with {name!r}, only with {having}; give --input"
        )
    return folder


def _file(name: str) -> Path:
    file = FOLDER / f"{name}{ENDING}"
    if name not in names():
        raise InputError(f"pretrained: expected one of {', '.join(names())}, got {name!r}")
    return file
