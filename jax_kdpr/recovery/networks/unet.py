"""The recovery network D_theta: a U-Net that also returns its bottleneck D(.)^[b] (eq. 6)."""

from functools import partial
from typing import Any, cast

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.types import Features
from jax_kdpr.recovery.networks.network import CONVOLVED, NetOptions, NetworkOutput
from jax_kdpr.recovery.networks.resampling import max_pool, upsample

GROUPS = 8  # groups of a group norm
MOST_LEVELS = 12  # each halves the size


class ConvBlock(nnx.Module):
    """(3x3 convolution, norm, ReLU) twice, at constant resolution."""

    def __init__(self, in_features: int, features: int, net: NetOptions, rngs: nnx.Rngs):
        conv = partial(
            nnx.Conv,
            kernel_size=(3, 3),
            use_bias=net.norm == "none",  # a norm takes any bias away again
            kernel_init=nnx.initializers.he_normal(),
            rngs=rngs,
            **arithmetic(net.precision),
        )
        self.first = conv(in_features, features)
        self.first_norm = make_norm(net.norm, features, rngs=rngs)
        self.second = conv(features, features)
        self.second_norm = make_norm(net.norm, features, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w f_in"], *, train: bool) -> Features:
        """Applies the block; `train` lets a batch norm use, and record, the batch's statistics."""
        for conv, norm in ((self.first, self.first_norm), (self.second, self.second_norm)):
            if isinstance(norm, nnx.BatchNorm) and not train:
                x = nnx.relu(_folded(conv, norm)(x))
            else:
                convolved = checkpoint_name(conv(x), CONVOLVED)
                x = nnx.relu(convolved if norm is None else norm(convolved))
        return x


class UNet(nnx.Module):
    """U-Net (Ronneberger et al., 2015) with max pooling, bilinear upsampling and a sigmoid head.

    Height and width must be divisible by 2^(len(widths) - 1).
    """

    block = ConvBlock

    def __init__(self, in_channels: int, out_channels: int, net: NetOptions, rngs: nnx.Rngs):
        """Builds the layers: `net.widths` are features per resolution, from full size down.

        Args:
            in_channels: Channels of the input.
            out_channels: Channels of the recovered image.
            net: Widths, norm, arithmetic, and whether there is a gate beside the image.
            rngs: Keys of the initial parameters.

        Raises:
            ValueError: If norm or precision is unknown, or a width does not split into groups.
        """
        widths = net.widths
        self.encoder = nnx.List(
            [
                self.block(before, after, net, rngs)
                for before, after in zip((in_channels, *widths[:-1]), widths, strict=True)
            ]
        )
        self.decoder = nnx.List(
            [
                self.block(deep + skip, skip, net, rngs)
                for deep, skip in zip(widths[:0:-1], widths[-2::-1], strict=True)
            ]
        )
        self.gated = net.gated
        self.head = nnx.Conv(
            widths[0], out_channels + self.gated, (1, 1), rngs=rngs, precision=lax.Precision.HIGHEST
        )

    @staticmethod
    def require(net: NetOptions, size: int) -> None:
        """Refuses options with which it cannot be built for images of size x size.

        Raises:
            InputError: If it cannot be built.
        """
        widths = len(net.widths)
        if not 2 <= widths <= MOST_LEVELS:
            raise InputError(f"net.widths: expected 2 to {MOST_LEVELS} widths, got {widths}")
        if net.norm == "group" and any(width % GROUPS for width in net.widths):
            raise InputError(
                f"net.widths: norm group wants multiples of {GROUPS}, got {net.widths}"
            )
        factor = 2 ** (widths - 1)
        below = size // factor * factor
        if size % factor:
            raise InputError(
                f"data.size: expected a multiple of {factor} for a U-Net of {widths} widths, got "
                f"{size}; set it to {f'{below} or ' if below else ''}{below + factor}, or change "
                "net.widths"
            )

    def __call__(self, x: Float[Array, "b h w c_in"], *, train: bool) -> NetworkOutput:
        """Recovers images [b h w out_channels] from network inputs."""
        levels = len(self.encoder) - 1
        if x.shape[1] % 2**levels or x.shape[2] % 2**levels:
            raise ValueError(
                f"U-Net input: expected a size divisible by {2**levels} ({levels} poolings), "
                f"got {x.shape[1:3]}"
            )
        skips = []
        for block in list(self.encoder)[:-1]:
            skips.append(block(x, train=train))
            x = max_pool(skips[-1])
        bottleneck = self.encoder[-1](x, train=train)

        x = bottleneck
        for block, skip in zip(self.decoder, reversed(skips), strict=True):
            x = block(jnp.concatenate([upsample(x), skip], axis=-1), train=train)
        # Losses and metrics see float32, whatever precision the convolutions had.
        outputs = nnx.sigmoid(self.head(x.astype(jnp.float32)))
        return NetworkOutput.of(outputs, bottleneck, gated=self.gated)


def arithmetic(precision: str) -> dict[str, Any]:
    """Returns the keyword arguments that make a layer compute in `precision`."""
    match precision:
        case "float32":
            return {"precision": lax.Precision.HIGHEST}
        case "tf32":
            return {"precision": lax.Precision.DEFAULT}
        case "bfloat16":
            return {"dtype": jnp.bfloat16}
    raise ValueError(f"precision: expected float32, tf32 or bfloat16, got {precision!r}")


def make_norm(norm: str, features: int, *, rngs: nnx.Rngs) -> nnx.Module | None:
    """Builds the norm layer `norm` ("batch", "group", "none")."""
    match norm:
        case "batch":
            # PyTorch's momentum 0.1 is Flax's 0.9.
            return nnx.BatchNorm(features, momentum=0.9, rngs=rngs)
        case "group":
            if features % GROUPS:
                raise ValueError(
                    f"widths: a group norm wants multiples of {GROUPS}, got {features}"
                )
            return nnx.GroupNorm(features, num_groups=GROUPS, rngs=rngs)
        case "none":
            return None
    raise ValueError(f"norm: expected batch, group or none, got {norm!r}")


def _folded(conv: nnx.Conv, norm: nnx.BatchNorm) -> nnx.Conv:
    """Returns a convolution and the batch norm after it as one convolution, for evaluation.

    The batch norm uses its running statistics. A GPU then passes over the features once less.
    """
    gain, offset = cast(nnx.Param, norm.scale), cast(nnx.Param, norm.bias)
    scale = gain[...] * lax.rsqrt(norm.var[...] + norm.epsilon)
    both = nnx.clone(conv)
    both.kernel = nnx.Param(conv.kernel[...] * scale[None, None, None])
    both.use_bias = True
    both.bias = nnx.Param(offset[...] - norm.mean[...] * scale)
    return both
