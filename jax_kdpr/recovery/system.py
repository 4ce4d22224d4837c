"""A single- or multi-shot camera and its network as one pair of pure functions, `init`, `apply`.

    image [h w c] -> camera -> CDP y [k sh sw] -> spectral estimate z [h w]
                  -> error reduction, if asked for -> U-Net -> image [h w c], bottleneck
                  -> error reduction again, if asked for, as far as the U-Net's gate lets it

`apply` returns every intermediate, so that a loss, a plot, a metric or a distillation target is a
function of its result and nothing is computed twice. Parameters are plain pytrees:

    params = {"phases": [k h w], "filter": [n n], "net": {...}}   trained, all real
    state  = {"start": [h w] complex, "net": {...}}               carried: z^(0), batch statistics
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jax_kdpr.core.sharding import data_parallel
from jax_kdpr.core.types import (
    Features,
    Fields,
    Images,
    Intensities,
    Key,
    Params,
    PyTree,
    Residuals,
    State,
)
from jax_kdpr.optics.camera import Camera, Optics
from jax_kdpr.optics.masks import init_phases
from jax_kdpr.optics.misalignment import Perturbation
from jax_kdpr.optics.objects import image_beside, scene_field
from jax_kdpr.recovery.data_consistency import error_reduction
from jax_kdpr.recovery.networks.unet import CONVOLVED, UNet, UNetOutput
from jax_kdpr.recovery.spectral import filtered_spectral_init, gaussian_kernel


class Output(NamedTuple):
    """Everything that one pass through a system makes, for a batch."""

    intensity: Intensities  # CDPs y, noise included
    estimate: Fields  # what the network sees: the spectral estimate z, made consistent if asked for
    residual: Residuals  # of the power iteration
    image: Images  # recovered image(s), in (0, 1)
    bottleneck: Features  # D(z)^[b]


class System(NamedTuple):
    """Pure functions of one optical system and its network; see `make_system`."""

    init: Callable[[Key], tuple[Params, State]]
    """init(key) -> (params, state)."""
    camera: Camera
    """Functions of `params["phases"]`."""
    measure: Callable[..., Intensities]
    """measure(params, images, key, by=None) -> the CDPs of a batch, as `Camera.measure`."""
    recover: Callable[..., tuple[Output, State]]
    """recover(params, state, intensity, train=False) -> (output, new state), from CDPs alone."""
    run_net: Callable[..., tuple[UNetOutput, PyTree]]
    """run_net(params, state, inputs, train=False) -> (its output, new statistics)."""
    apply: Callable[..., tuple[Output, State]]
    """apply(params, state, images, key, train=False) -> (output, new state): both of the above."""


def make_system(
    camera: Camera,
    *,
    snapshots: int = 1,
    iterations: int = 25,
    weights: str = "soft",
    fraction: float = 1 / 6,
    threshold: float = 0.6,
    filter_size: int = 5,
    filter_sigma: float = 1.0,
    gauge: str = "start",
    consistency_steps: int = 0,
    widths: tuple[int, ...] = (32, 64, 128, 256),
    norm: str = "batch",
    precision: str = "tf32",
    refine_steps: int = 0,
) -> System:
    """Builds the pure functions of one system. Nothing is allocated until `init` is called.

    Args:
        camera: That measures (`camera.make_camera`). The recovery knows its design, scenes and
            devices.
        snapshots: L, the number of masks and shots.
        iterations: T of algorithm 1.
        weights: Weights of Gamma, with their `fraction` and `threshold` (`recovery.spectral`).
        filter_size: Taps of the learned filter each way, odd.
        filter_sigma: Width of its Gaussian start, pixels.
        gauge: What sets the estimate's global phase, "start" or "mean" (`recovery.spectral`).
        consistency_steps: Steps of error reduction between estimate and network
            (`recovery.data_consistency`).
        widths: Features of the U-Net per resolution.
        norm: Its norm layer: "batch", "group" or "none".
        precision: Arithmetic of its convolutions (`networks.unet`).
        refine_steps: Steps of error reduction from the network's image. A gate, which the network
            gives pixel by pixel, weighs their result against that image.
    """
    size, scene = camera.size, camera.scene
    init_net, run_net = _functional_net(
        out_channels=camera.channels,
        widths=widths,
        norm=norm,
        precision=precision,
        gated=refine_steps > 0,
    )

    def init(key: Key) -> tuple[Params, State]:
        mask_key, start_key, net_key = jax.random.split(key, 3)
        net, stats = init_net(net_key)
        params = {
            "phases": init_phases(mask_key, snapshots=snapshots, height=size, width=size),
            "filter": jnp.asarray(gaussian_kernel(filter_size, filter_sigma)),
            "net": net,
        }
        start = jax.random.normal(start_key, (size, size), jnp.complex64)
        return params, {"start": start, "net": stats}

    def closer_to_data(field, intensity, optics: Optics, *, steps: int):
        return error_reduction(
            field,
            intensity,
            optics.masks,
            transfer=optics.transfer,
            steps=steps,
            scene=scene["kind"],
            min_amplitude=scene["min_amplitude"],
        )

    def estimate_one(recovery, intensity):
        optics, kernel, start = recovery
        estimate, residual = filtered_spectral_init(
            intensity,
            optics.masks,
            kernel,
            start,
            transfer=optics.transfer,
            iterations=iterations,
            weights=weights,
            fraction=fraction,
            threshold=threshold,
            gauge=gauge,
        )
        return closer_to_data(estimate, intensity, optics, steps=consistency_steps), residual

    def refine_one(optics, image, gate, intensity):
        field = scene_field(image, **scene)
        closer = closer_to_data(field, intensity, optics, steps=refine_steps)
        # The measurement holds neither global phase nor branch: they stay the network's.
        refined = jnp.clip(image_beside(closer, image, **scene), 0.0, 1.0)
        return image + gate * (refined - image)

    estimate_batch = data_parallel(estimate_one, camera.mesh)
    refine_batch = data_parallel(refine_one, camera.mesh)

    def measure(
        params: Params, images: Images, key: Key, by: Perturbation | None = None
    ) -> Intensities:
        return camera.measure(params["phases"], images, key, by)

    def recover(
        params: Params, state: State, intensity: Intensities, *, train: bool = False
    ) -> tuple[Output, State]:
        optics: Optics = camera.optics(params["phases"])
        recovery = (optics, params["filter"], state["start"])
        estimate, residual = estimate_batch(recovery, intensity)
        net_output, stats = run_net(params, state, network_input(estimate), train=train)
        image = net_output.image
        if net_output.gate is not None:
            image = refine_batch(optics, image, net_output.gate, intensity)
        output = Output(
            intensity=intensity,
            estimate=estimate,
            residual=residual,
            image=image,
            bottleneck=net_output.bottleneck,
        )
        return output, {**state, "net": stats}

    def apply(
        params: Params, state: State, images: Images, key: Key, *, train: bool = False
    ) -> tuple[Output, State]:
        return recover(params, state, measure(params, images, key), train=train)

    return System(
        init=init, camera=camera, measure=measure, recover=recover, run_net=run_net, apply=apply
    )


def _functional_net(
    **options: Any,
) -> tuple[Callable[[Key], tuple[Params, PyTree]], Callable[..., tuple[UNetOutput, PyTree]]]:
    """Returns a U-Net as pure functions, init(key) and run(params, state, inputs, train=False).

    Args:
        options: Of `networks.unet.UNet`.
    """

    def build(rngs: nnx.Rngs) -> UNet:
        return UNet(in_channels=2, rngs=rngs, **options)

    # The structure of the network without its numbers: static, closed over by `run`.
    graph, shapes, stats_shapes = nnx.split(
        nnx.eval_shape(lambda: build(nnx.Rngs(0))), nnx.Param, ...
    )

    def init(key: Key) -> tuple[Params, PyTree]:
        _, net, stats = nnx.split(build(nnx.Rngs(params=key)), nnx.Param, ...)
        return nnx.to_pure_dict(net), nnx.to_pure_dict(stats)

    def run(
        params: Params, state: State, inputs: Float[Array, "b h w 2"], *, train: bool = False
    ) -> tuple[UNetOutput, PyTree]:
        def forward(net_params, stats, inputs) -> tuple[UNetOutput, PyTree]:
            net = nnx.merge(
                graph, _filled(shapes, net_params), _filled(stats_shapes, stats), copy=True
            )
            output = net(inputs, train=train)
            return output, nnx.to_pure_dict(nnx.state(net, nnx.Not(nnx.Param)))

        if train:
            # The gradient stores the convolutions' outputs; norms, ReLUs, upsampling and joins are
            # made again, which costs little and halves the memory of a step.
            forward = jax.checkpoint(
                forward, policy=jax.checkpoint_policies.save_only_these_names(CONVOLVED)
            )
        return forward(params["net"], state["net"], inputs)

    return init, run


def network_input(estimate: Fields) -> Float[Array, "b h w 2"]:
    """Returns real and imaginary part of complex estimates as two channels."""
    return jnp.stack([estimate.real, estimate.imag], axis=-1)


def count_parameters(params: Params) -> dict[str, int]:
    """Returns the number of trained real numbers in each part of `params`, and their "total"."""
    counts = {
        part: sum(leaf.size for leaf in jax.tree.leaves(leaves)) for part, leaves in params.items()
    }
    return {**counts, "total": sum(counts.values())}


def _filled(shapes: PyTree, values: dict) -> PyTree:
    """Returns a copy of an NNX state holding `values`, a plain dict as `nnx.to_pure_dict` gives."""
    filled = jax.tree.map(lambda leaf: leaf, shapes)
    nnx.replace_by_pure_dict(filled, values)
    return filled
