"""Endless procedural objects, made on the device from a random key: no file, no network.

Each image is one object on an empty background: a silhouette joined from a few rounded shapes,
with holes cut through it, parts of different grey split by straight seams, a texture of stripes
or weave, a soft shading, and sharp (one-pixel) edges. So a recovery network meets what tells a good
mask from a bad one: an outline, inner edges, fine periodic detail and plateaus.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jax_kdpr.core.types import Key

SCENES_VERSION = 1  # raise it with every change of what a key draws: it tells data sets apart
BLOCK = 256  # objects drawn at a time
LOBES = 4  # shapes joined into a silhouette; between two and all of them are used
HOLES = 3  # shapes cut out; between none and all of them are used
HALF_VIEW = 0.68  # half the side of the image, in the unit of the lengths below
SEAMS = 2  # straight lines that split the object into parts of different grey


def draw_scenes(key: Key, *, count: int, size: int) -> Float[Array, "n s s"]:
    """Draws `count` independent objects as images [count size size] with values in [0, 1].

    The same key gives the same objects; scene i does not depend on `count`.
    """
    blocks = [
        _draw_block(key, first + jnp.arange(BLOCK), size=size) for first in range(0, count, BLOCK)
    ]
    return jnp.concatenate(blocks)[:count]


@partial(jax.jit, static_argnames="size")
def _draw_block(key: Key, numbers: Int[Array, "n"], *, size: int) -> Float[Array, "n s s"]:
    """Draws the objects of one block.

    All blocks share one compiled program, since compiling takes longer than drawing.
    """
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(numbers)
    return jax.vmap(lambda one: draw_scene(one, size=size))(keys)


def draw_scene(key: Key, *, size: int) -> Float[Array, "s s"]:
    """Draws one object; values in [0, 1], background 0."""
    pose_key, body_key, hole_key, seam_key, texture_key, grey_key = jax.random.split(key, 6)
    axis = HALF_VIEW * ((jnp.arange(size) + 0.5) / size * 2.0 - 1.0)
    y, x = jnp.meshgrid(axis, axis, indexing="ij")
    pixel = 2.0 * HALF_VIEW / size

    turn, stretch, shift_x, shift_y = jax.random.uniform(pose_key, (4,), minval=-1.0)
    x, y = _rotated(x - 0.1 * shift_x, y - 0.1 * shift_y, np.pi * turn)
    x, y = x * jnp.exp(0.25 * stretch), y * jnp.exp(-0.25 * stretch)

    body = _silhouette(body_key, x, y)
    inside = jax.nn.sigmoid(-4.0 * body / pixel) * (1.0 - _holes(hole_key, x, y, pixel))
    grey = _parts(seam_key, x, y, pixel) * _texture(texture_key, x, y)

    tilt_x, tilt_y = jax.random.uniform(grey_key, (2,), minval=-0.25, maxval=0.25)
    return jnp.clip(inside * grey * (1.0 + tilt_x * x + tilt_y * y), 0.0, 1.0)


def _rotated(x, y, angle):
    return jnp.cos(angle) * x + jnp.sin(angle) * y, jnp.cos(angle) * y - jnp.sin(angle) * x


def _rounded_box(x, y, centre, half, corner, angle):
    """Returns the signed distance to a box with rounded corners: negative inside."""
    x, y = _rotated(x - centre[0], y - centre[1], angle)
    qx, qy = jnp.abs(x) - half[0] + corner, jnp.abs(y) - half[1] + corner
    outside = jnp.sqrt(jnp.maximum(qx, 0.0) ** 2 + jnp.maximum(qy, 0.0) ** 2 + 1e-12)
    return outside + jnp.minimum(jnp.maximum(qx, qy), 0.0) - corner


def _silhouette(key, x, y):
    """Returns the signed distance to a union of boxes (bars to discs) that all touch the middle."""
    count_key, radius_key, angle_key, half_key, corner_key, wave_key = jax.random.split(key, 6)
    count = jax.random.randint(count_key, (), 2, LOBES + 1)
    radius = jax.random.uniform(radius_key, (LOBES,), minval=0.1, maxval=0.4).at[0].set(0.0)
    angle = jax.random.uniform(angle_key, (LOBES,), maxval=2 * np.pi)
    half = jax.random.uniform(half_key, (LOBES, 2), minval=0.14, maxval=0.42)
    corner = jax.random.uniform(corner_key, (LOBES,)) * jnp.min(half, axis=1)

    distances = jax.vmap(
        lambda r, a, h, c: _rounded_box(x, y, (r * jnp.cos(a), r * jnp.sin(a)), h, c, a)
    )(radius, angle, half, corner)
    used = jnp.arange(LOBES)[:, None, None] < count
    union = jnp.min(jnp.where(used, distances, 2.0), axis=0)

    # Some objects have a scalloped outline, as fabric and cells do.
    depth, petals, start = jax.random.uniform(wave_key, (3,))
    wave = jnp.sin(jnp.floor(3 + 8 * petals) * jnp.arctan2(y, x + 1e-6) + 2 * np.pi * start)
    return union + 0.08 * jnp.maximum(depth - 0.5, 0.0) * wave


def _holes(key, x, y, pixel):
    """Returns the coverage, in [0, 1], of the shapes cut out of the silhouette."""
    count_key, place_key, half_key, angle_key, round_key = jax.random.split(key, 5)
    count = jax.random.randint(count_key, (), 0, HOLES + 1)
    place = jax.random.uniform(place_key, (HOLES, 2), minval=-0.35, maxval=0.35)
    half = jax.random.uniform(half_key, (HOLES, 2), minval=0.05, maxval=0.16)
    angle = jax.random.uniform(angle_key, (HOLES,), maxval=np.pi)
    corner = jax.random.uniform(round_key, (HOLES,)) * jnp.min(half, axis=1)
    distances = jax.vmap(lambda p, h, c, a: _rounded_box(x, y, p, h, c, a))(
        place, half, corner, angle
    )
    used = jnp.arange(HOLES)[:, None, None] < count
    return jax.nn.sigmoid(-4.0 * jnp.min(jnp.where(used, distances, 2.0), axis=0) / pixel)


def _parts(key, x, y, pixel):
    """Returns the grey level of each part: up to four parts, split by straight seams."""
    angle_key, offset_key, grey_key = jax.random.split(key, 3)
    angles = jax.random.uniform(angle_key, (SEAMS,), maxval=2 * np.pi)
    offsets = jax.random.uniform(offset_key, (SEAMS,), minval=-0.3, maxval=0.3)
    steps = jax.random.uniform(grey_key, (SEAMS,), minval=-0.35, maxval=0.35)
    base = 0.65
    for angle, offset, step in zip(angles, offsets, steps, strict=True):
        side = jnp.cos(angle) * x + jnp.sin(angle) * y - offset
        base = base + step * (jax.nn.sigmoid(4.0 * side / pixel) - 0.5)
    return base


def _texture(key, x, y):
    """Returns a factor around 1: stripes or a weave of stripes, of random period and depth."""
    angle_key, period_key, depth_key, phase_key, kind_key = jax.random.split(key, 5)
    along, across = _rotated(x, y, jax.random.uniform(angle_key, (), maxval=np.pi))
    period = jax.random.uniform(period_key, (), minval=0.2, maxval=0.6)
    depth = jax.random.uniform(depth_key, (), maxval=0.4)
    phase = jax.random.uniform(phase_key, (2,), maxval=2 * np.pi)
    stripes = jnp.sin(2 * np.pi * along / period + phase[0])
    weave = stripes * jnp.sin(2 * np.pi * across / period + phase[1])
    # tanh makes the profile nearly square, so that stripes have edges, not only a frequency.
    return 1.0 + depth * jnp.tanh(3.0 * jnp.where(jax.random.bernoulli(kind_key), weave, stripes))
