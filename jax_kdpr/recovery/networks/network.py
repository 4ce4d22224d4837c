"""What a recovery network D_theta is: its options, its output, and the networks that there are.

A network is an `nnx.Module` made by `Network(in_channels, out_channels, net, rngs)`, with net its
`NetOptions`. `network(x, train=...)` maps x [b h w in_channels] to a `NetworkOutput`. A network
that does not take every option has a static method `require(net, size)`, which raises `InputError`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jax_kdpr.core import runtime
from jax_kdpr.core.limits import Range
from jax_kdpr.core.options import option, section
from jax_kdpr.core.registry import Registry
from jax_kdpr.core.types import Features, Gates, Images, Key, Params, PyTree, State

CONVOLVED = "convolved"  # name of every convolution's output, for `jax.checkpoint` policies
NETWORKS: Registry[Callable[..., Any]] = Registry(
    "network",
    {
        "unet": "jax_kdpr.recovery.networks.unet:UNet",
        "residual_unet": "jax_kdpr.recovery.networks.residual_unet:ResidualUNet",
    },
)


class NetworkOutput(NamedTuple):
    """Output of one pass of a network."""

    image: Images  # in (0, 1)
    bottleneck: Features  # the deepest features, the tensor that the image is made of
    gate: Gates | None = None  # of a gated network: weight of a refined image, in (0, 1)

    @classmethod
    def of(
        cls, outputs: Float[Array, "b h w c_out"], bottleneck: Features, *, gated: bool
    ) -> "NetworkOutput":
        """Splits off the last channel as the gate where `gated`; everything becomes float32."""
        outputs, bottleneck = outputs.astype(jnp.float32), bottleneck.astype(jnp.float32)
        image, gate = (outputs[..., :-1], outputs[..., -1:]) if gated else (outputs, None)
        return cls(image, bottleneck, gate)


@section
class NetOptions:
    """Recovery network."""

    kind: str = option("unet", "which network", choices=NETWORKS)
    widths: tuple[int, ...] = option(
        (32, 64, 128, 256),
        "channels of each level",
        within=Range(1, 8192),
        length=Range(1, 64),
    )
    norm: str = option("batch", "norm layers", choices=("batch", "group", "none"))
    precision: str = option(
        "tf32",
        "of convolutions; tf32 only on NVIDIA GPUs; the rest is float32",
        choices=("float32", "tf32", "bfloat16"),
    )
    refine_steps: int = option(
        0,
        "error-reduction steps after the network, weighted by its gate",
        within=Range(0, 10_000),
    )

    @property
    def gated(self) -> bool:
        """Whether the network has one more output beside the image, the gate."""
        return self.refine_steps > 0


class PureNetwork(NamedTuple):
    """A network as pure functions of plain dicts of arrays."""

    init: Callable[[Key], tuple[Params, PyTree]]
    """init(key) -> (its parameters, its statistics)."""
    run: Callable[..., tuple[NetworkOutput, PyTree]]
    """run(params, state, inputs, train=False) -> (its output, new statistics)."""


def pure_network(net: NetOptions, *, in_channels: int, out_channels: int) -> PureNetwork:
    """Makes pure functions of a network; nothing is allocated until `init` is called."""

    def build(rngs: nnx.Rngs) -> Any:
        return NETWORKS[net.kind](in_channels, out_channels, net, rngs)

    # The structure of the network without its numbers is static; `run` closes over it.
    graph, shapes, stats_shapes = nnx.split(
        nnx.eval_shape(lambda: build(nnx.Rngs(0))), nnx.Param, ...
    )

    def init(key: Key) -> tuple[Params, PyTree]:
        _, params, stats = nnx.split(build(nnx.Rngs(params=key)), nnx.Param, ...)
        return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)

    def run(
        params: Params, state: State, inputs: Float[Array, "b h w c_in"], *, train: bool = False
    ) -> tuple[NetworkOutput, PyTree]:
        def forward(net_params, stats, inputs) -> tuple[NetworkOutput, PyTree]:
            network = nnx.merge(
                graph, _filled(shapes, net_params), _filled(stats_shapes, stats), copy=True
            )
            output = network(inputs, train=train)
            return output, nnx.to_pure_dict(nnx.state(network, nnx.Not(nnx.Param)))

        arguments = (params["net"], state["net"], inputs)
        if train and (runtime.on_cpu() or not runtime.fits(_kept_bytes(forward, arguments))):
            # The gradient keeps only the outputs of convolutions. Recomputing norms, ReLUs,
            # upsampling and joins halves the memory of a step; on a CPU it costs no time.
            forward = jax.checkpoint(
                forward, policy=jax.checkpoint_policies.save_only_these_names(CONVOLVED)
            )
        return forward(*arguments)

    return PureNetwork(init, run)


def _kept_bytes(forward: Callable, arguments: tuple) -> int:
    """Returns the bytes that the gradient of a function keeps, on all devices together."""
    kept = jax.eval_shape(lambda *given: jax.vjp(forward, *given)[1], *arguments)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))


def _filled(shapes: PyTree, values: dict) -> PyTree:
    """Returns a copy of an NNX state holding `values`, a plain dict as `nnx.to_pure_dict` gives."""
    filled = jax.tree.map(lambda leaf: leaf, shapes)
    nnx.replace_by_pure_dict(filled, values)
    return filled
