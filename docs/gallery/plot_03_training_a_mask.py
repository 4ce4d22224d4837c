"""
A mask while it is trained
==========================

Everything from the phases of the mask to the recovered image can be differentiated. So mask, filter
and network are trained together. ``kdpr.train`` does that with checkpoints, schedules and data of
your own. Here the loop is written out, with a system so small that it trains within seconds.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import jax_kdpr as kdpr
from jax_kdpr.data.scenes import draw_scenes
from jax_kdpr.runs.assembly import build_system
from jax_kdpr.training.state import make_optimizer

STAGES = 0, 10, 30, 100, 200  # steps

config = kdpr.presets.quickstart()  # one shot, 32 x 32, no noise
config.net.kind, config.net.widths = "residual_unet", (8, 16)
config.spectral.iterations = 8
config.optim.mask_lr = 0.1  # radians a step, at most about
system = build_system(config)
optimizer = make_optimizer(config.optim, total_steps=STAGES[-1])
scenes = draw_scenes(jax.random.key(1), count=512, size=32)[..., None]
train, validation = scenes[:448], scenes[448:]

# %%
# ``system.apply`` measures a batch of scenes and recovers them. ``params`` holds the phases of the
# mask, the filter of the spectral estimate and the network.


@jax.jit
def begin(key):
    """Draws a random mask and a network."""
    params, state = system.init(key)
    return params, state, optimizer.init(params)


@jax.jit
def step(params, state, memory, key):
    """Makes one step of Adam on 16 scenes drawn at random."""

    def loss(params):
        images = jax.random.choice(key, train, (16,))
        output, new_state = system.apply(params, state, images, key, train=True)
        return jnp.mean((output.image - images) ** 2), new_state

    gradients, state = jax.grad(loss, has_aux=True)(params)
    updates, memory = optimizer.update(gradients, memory, params)
    return optax.apply_updates(params, updates), state, memory


@jax.jit
def validate(params, state):
    """Recovers scenes that are not trained on: their mean PSNR, and one of them."""
    output, _ = system.apply(params, state, validation, jax.random.key(0))
    return jnp.mean(system.camera.score(output.image, validation).psnr), output.image[0]


film, learned = [], begin(jax.random.key(0))
for number in range(STAGES[-1] + 1):
    if number in STAGES:
        film.append((number, learned[0]["phases"][0], *validate(*learned[:2])))
        print(f"step {number}: {film[-1][2]:.1f} dB")
    learned = step(*learned, jax.random.key(number))

# %%
# To the eye the mask stays as random as it was. What the training has changed of it is in the
# second line: the difference to the first mask, modulo a turn. In the third line is a scene of the
# validation, recovered.
figure, axes = plt.subplots(3, len(film), figsize=(10, 6.2), layout="constrained")
for column, (number, mask, psnr, recovered) in zip(axes.T, film, strict=True):
    change = np.angle(np.exp(1j * (mask - film[0][1])))
    drawn = [
        column[0].imshow(np.mod(mask, 2 * np.pi), cmap="twilight", vmin=0, vmax=2 * np.pi),
        column[1].imshow(change, cmap="RdBu_r", vmin=-2, vmax=2),
        column[2].imshow(np.pi * recovered[..., 0], vmin=0, vmax=np.pi),
    ]
    column[0].set_title(f"step {number}", fontsize=10)
    column[2].set_title(f"validation {psnr:.1f} dB", fontsize=10)
names = "mask", "change of the mask", "recovered phase"
for line, picture, name in zip(axes, drawn, names, strict=True):
    figure.colorbar(picture, ax=line[-1], label=f"{name}, radians", shrink=0.8)
for axis in axes.ravel():
    axis.axis("off")
plt.show()
