"""Progress bars: on a terminal alone, so that logs of batch jobs hold none."""

from functools import partial

from tqdm import tqdm

progress = partial(tqdm, disable=None)  # None: where stderr is no terminal
