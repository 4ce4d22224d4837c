"""A system that recovers by a classical solver, without a network and without training.

CDP y [k sh sw] -> spectral estimates, one a start vector -> solver -> the object that fits best
                -> image, read alone
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jax_kdpr.core.sharding import spread
from jax_kdpr.core.types import Fields, Intensities, Key, Params, PyTree, State
from jax_kdpr.optics.cdp import Optics
from jax_kdpr.optics.objects import read_alone
from jax_kdpr.recovery.projections import Settings
from jax_kdpr.recovery.refinement import Refinement
from jax_kdpr.recovery.solvers import require_projection, solve
from jax_kdpr.recovery.spectral import filtered_spectral_init
from jax_kdpr.recovery.system import Output, System

# For one shot, where no network guesses the phase: two real frames were recovered with it
# (docs/science/measured.md).
ALONE = Refinement(500, "accelerated", 0.02)
STARTS = 16


@dataclasses.dataclass(frozen=True)
class SolverSystem(System):
    """Optics and a solver; the options `net` are not read, and there are no network parameters.

    The state also holds "starts" [n h w], the start vectors of the spectral estimates.
    """

    solver: Refinement = ALONE

    def init_net(self, key: Key) -> tuple[PyTree, PyTree]:
        """Returns empty parameters and statistics, as there is no network."""
        return {}, {}

    def draw_starts(self, key: Key, count: int) -> Fields:
        """Draws `count` start vectors."""
        return jax.random.normal(key, (count, self.camera.size, self.camera.size), jnp.complex64)

    def recover(
        self,
        params: Params,
        state: State,
        intensity: Intensities,
        *,
        train: bool = False,
        optics: Optics | None = None,
    ) -> tuple[Output, State]:
        """Recovers scenes by the solver, which runs from every start; the best fit is kept.

        Their phases are read alone (`optics.objects.read_alone`), and the bottleneck is empty.

        Raises:
            InputError: If the solver projects exactly and the optics do not allow it.
        """
        optics = self.camera.optics(params["phases"]) if optics is None else optics
        require_projection(self.solver.solver, optics)
        scene = self.camera.scene

        def recover_one(recovery, y):
            optics, kernel, starts = recovery

            def attempt(start):
                first, residual = filtered_spectral_init(y, optics, kernel, start, self.spectral)
                field, misfit = solve(
                    y,
                    optics,
                    first,
                    solver=self.solver.solver,
                    steps=self.solver.steps,
                    scene=scene.kind,
                    min_amplitude=scene.min_amplitude,
                    settings=Settings(tv=self.solver.tv),
                )
                return first, residual, field, misfit

            firsts, residuals, fields, misfits = jax.vmap(attempt)(starts)
            best = jnp.argmin(jnp.where(jnp.isfinite(misfits), misfits, jnp.inf))
            return firsts[best], residuals[best], read_alone(fields[best], scene)

        def recover_all(recovery, intensity):  # one scene at a time, to save memory
            return lax.map(partial(recover_one, recovery), intensity)

        recovery = (optics, params["filter"], state["starts"])
        found = spread(recover_all, self.camera.mesh)(recovery, intensity)
        estimate, residual, image = found
        return Output(intensity, estimate, residual, image, jnp.zeros((len(image), 0, 0, 0))), state
