"""A camera and its network as pure functions: `init`, `measure`, `recover`, `apply`.

    image [h w c] -> camera -> CDP y [k sh sw] -> spectral estimate z [h w]
                  -> error reduction, if asked for -> network -> image [h w c], bottleneck
                  -> error reduction again, if asked for, weighted by the network's gate

`apply` returns every intermediate, so that a loss, a plot, a metric or a distillation target is a
function of its result and nothing is computed twice. Parameters are plain pytrees:

    params = {"phases": [k h w], "filter": [n n], "net": {...}}   trained, all real
    state  = {"start": [h w] complex, "net": {...}}               carried: z^(0), batch statistics
"""

import dataclasses
from functools import cached_property, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_kdpr.core.sharding import data_parallel, spread
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
from jax_kdpr.optics.camera import Camera
from jax_kdpr.optics.cdp import Optics
from jax_kdpr.optics.masks import init_phases
from jax_kdpr.optics.misalignment import Perturbation
from jax_kdpr.recovery.data_consistency import error_reduction
from jax_kdpr.recovery.networks.network import (
    NetOptions,
    NetworkOutput,
    PureNetwork,
    pure_network,
)
from jax_kdpr.recovery.refinement import Refinement, refine_image
from jax_kdpr.recovery.spectral import SpectralOptions, gaussian_kernel, spectral_estimates


class Output(NamedTuple):
    """All results of one pass through a system, for a batch."""

    intensity: Intensities  # CDPs y, noise included
    estimate: Fields  # what the network sees: z, after error reduction if asked for
    residual: Residuals  # of the power iteration
    image: Images  # recovered image(s), in (0, 1)
    bottleneck: Features  # D(z)^[b]


@dataclasses.dataclass(frozen=True)
class System:
    """One optical system and its network; its methods are pure functions."""

    camera: Camera  # measures; the recovery uses its design, scene options and mesh
    snapshots: int = 1  # L, the number of masks and shots
    spectral: SpectralOptions = dataclasses.field(default_factory=SpectralOptions)
    net: NetOptions = dataclasses.field(default_factory=NetOptions)

    def init(self, key: Key) -> tuple[Params, State]:
        """Draws the initial (params, state)."""
        mask_key, start_key, net_key = jax.random.split(key, 3)
        size = self.camera.size
        net, stats = self.init_net(net_key)
        kernel = gaussian_kernel(self.spectral.filter_size, self.spectral.filter_sigma)
        params = {
            "phases": init_phases(mask_key, snapshots=self.snapshots, height=size, width=size),
            "filter": jnp.asarray(kernel),
            "net": net,
        }
        start = jax.random.normal(start_key, (size, size), jnp.complex64)
        return params, {"start": start, "net": stats}

    def init_net(self, key: Key) -> tuple[PyTree, PyTree]:
        """Draws the network's (parameters, statistics)."""
        return self.network.init(key)

    def apply(
        self, params: Params, state: State, images: Images, key: Key, *, train: bool = False
    ) -> tuple[Output, State]:
        """Measures scenes and recovers them: (output, new state)."""
        optics = self.camera.optics(params["phases"])
        intensity = self.camera.measure(optics, images, key)
        return self.recover(params, state, intensity, train=train, optics=optics)

    def measure(
        self, params: Params, images: Images, key: Key, by: Perturbation | None = None
    ) -> Intensities:
        """Returns the CDPs of a batch, as `Camera.measure` does."""
        return self.camera.measure(self.camera.optics(params["phases"]), images, key, by)

    def recover(
        self,
        params: Params,
        state: State,
        intensity: Intensities,
        *,
        train: bool = False,
        optics: Optics | None = None,
    ) -> tuple[Output, State]:
        """Recovers scenes from their CDPs alone: (output, new state).

        `optics` are those of the masks, if they are already computed.
        """
        optics = self.camera.optics(params["phases"]) if optics is None else optics
        mesh, scene = self.camera.mesh, self.camera.scene

        def refine_one(optics, image, gate, intensity):
            refinement = Refinement(self.net.refine_steps, "error_reduction")
            refined = refine_image(image, intensity, optics, scene, refinement)
            return image + gate * (refined - image)

        estimate, residual = self.estimate(params, state, intensity, optics)
        net_output, stats = self.run_net(params, state, network_input(estimate), train=train)
        image = net_output.image
        if (net_output.gate is not None) != self.net.gated:
            raise ValueError(
                f"{self.net.kind}: expected {'a' if self.net.gated else 'no'} gate with "
                f"net.refine_steps = {self.net.refine_steps}; see NetworkOutput.of"
            )
        if net_output.gate is not None:
            image = data_parallel(refine_one, mesh)(optics, image, net_output.gate, intensity)
        output = Output(
            intensity=intensity,
            estimate=estimate,
            residual=residual,
            image=image,
            bottleneck=net_output.bottleneck,
        )
        return output, {**state, "net": stats}

    def estimate(
        self, params: Params, state: State, intensity: Intensities, optics: Optics
    ) -> tuple[Fields, Residuals]:
        """Returns what the network sees, and the residuals, from the CDPs and the masks alone."""

        def estimate_all(recovery, intensity):
            optics, kernel, start = recovery
            estimate, residual = spectral_estimates(intensity, optics, kernel, start, self.spectral)
            steps = self.spectral.consistency_steps
            if steps:
                consistent = partial(
                    error_reduction, optics=optics, steps=steps, scene=self.camera.scene
                )
                estimate = jax.vmap(consistent)(estimate, intensity)
            return estimate, residual

        recovery = (optics, params["filter"], state["start"])
        return spread(estimate_all, self.camera.mesh)(recovery, intensity)

    def run_net(
        self,
        params: Params,
        state: State,
        inputs: Float[Array, "b h w 2"],
        *,
        train: bool = False,
    ) -> tuple[NetworkOutput, PyTree]:
        """Runs the network alone: (its output, new statistics)."""
        return self.network.run(params, state, inputs, train=train)

    @cached_property
    def network(self) -> PureNetwork:
        """The network as pure functions."""
        return pure_network(self.net, in_channels=2, out_channels=self.camera.channels)


def network_input(estimate: Fields) -> Float[Array, "b h w 2"]:
    """Returns the real and imaginary parts of complex estimates as two channels."""
    return jnp.stack([estimate.real, estimate.imag], axis=-1)
