"""Small things that several test files do."""

import numpy as np
import pytest

from jax_kdpr.errors import InputError


def rejection(call, *arguments, **options) -> str:
    """Returns the one line of the InputError that a call must raise."""
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def same(one, other) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other))


def image_ids(splits, originals) -> list[set[int]]:
    """Returns which of the original images each split holds; fails if one is none of them."""
    index = {image.tobytes(): i for i, image in enumerate(originals)}
    assert len(index) == len(originals)
    found = [[index[image.tobytes()] for image in np.asarray(split)] for split in splits]
    assert all(len(set(ids)) == len(ids) for ids in found)
    return [set(ids) for ids in found]
