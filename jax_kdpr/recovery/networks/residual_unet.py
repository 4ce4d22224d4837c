"""A U-Net of residual blocks (Sinha et al., Optica 4, 1117, 2017; Zhang et al., 2018)."""

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from jax_kdpr.core.types import Features
from jax_kdpr.recovery.networks.network import NetOptions
from jax_kdpr.recovery.networks.unet import ConvBlock, UNet


class ResidualBlock(ConvBlock):
    """A `ConvBlock` plus its input, which a 1 x 1 convolution brings to as many features."""

    def __init__(self, in_features: int, features: int, net: NetOptions, rngs: nnx.Rngs):
        super().__init__(in_features, features, net, rngs)
        self.shortcut = nnx.Conv(
            in_features,
            features,
            (1, 1),
            use_bias=False,
            precision=lax.Precision.HIGHEST,
            rngs=rngs,
        )

    def __call__(self, x: Float[Array, "b h w f_in"], *, train: bool) -> Features:
        """Applies the block."""
        changed = super().__call__(x, train=train)
        return changed + self.shortcut(x.astype(jnp.float32)).astype(changed.dtype)


class ResidualUNet(UNet):
    """The U-Net with a shortcut around each of its blocks, and the same options and bottleneck."""

    block = ResidualBlock
