"""Progress bars, shown only on a terminal so that the logs of batch jobs hold none."""

from functools import partial

from tqdm import tqdm

progress = partial(tqdm, disable=None)  # None disables the bar if stderr is not a terminal
