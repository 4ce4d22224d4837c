"""Classical phase retrieval on the same operator: no network, no training, many steps.

    error_reduction  Gerchberg and Saxton, 1972; Fienup, 1982     `projections`
    hio              hybrid input-output; Fienup, 1982
    raar             relaxed averaged alternating reflections; Luke, 2005
    wirtinger        Wirtinger flow; Candes et al., 2015          `gradient_flows`
    taf              truncated amplitude flow; Wang et al., 2018
    raf              reweighted amplitude flow; Wang et al., 2018
    accelerated      Nesterov's gradient on the amplitudes, with a total-variation prior

What they can do depends on the measurement. One shot, or a few, do not determine the object (see
README), and a solver ends in one of the objects that fit.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.registry import Registry, allow, is_foreign
from jax_kdpr.core.types import Field, Intensity, Key, Scalar
from jax_kdpr.optics.cdp import Optics, as_phasors, check_sensor, mask_power, propagate
from jax_kdpr.optics.cdp import intensity as intensity_of
from jax_kdpr.optics.paths import is_unitary
from jax_kdpr.optics.phase import fix_global_phase
from jax_kdpr.recovery.data_consistency import Measured, measured
from jax_kdpr.recovery.power_iteration import safe_sqrt
from jax_kdpr.recovery.projections import Constraint, Method, Settings, project_object

_HERE = "jax_kdpr.recovery"
Solver = Callable[[Measured, Constraint, Settings], Method]
SOLVERS: Registry[Solver] = Registry(
    "solver",
    {
        "error_reduction": f"{_HERE}.projections:error_reduction_method",
        "hio": f"{_HERE}.projections:hio_method",
        "raar": f"{_HERE}.projections:raar_method",
        "wirtinger": f"{_HERE}.gradient_flows:wirtinger_method",
        "taf": f"{_HERE}.gradient_flows:truncated_method",
        "raf": f"{_HERE}.gradient_flows:reweighted_method",
        "accelerated": f"{_HERE}.gradient_flows:accelerated_method",
    },
)
DEFAULTS = Settings()
PROJECTING = ("hio", "raar")
READ_BY = {"beta": PROJECTING, "tv": ("accelerated",)}  # solvers of ours that read a number
CONSTRAINTS = ("phase", "amplitude", "complex", "none")


def solve(
    intensity: Intensity,
    optics: Optics,
    start: Field,
    *,
    solver: str | Solver,
    steps: int,
    scene: str,
    min_amplitude: float = 0.5,
    support: Bool[Array, "h w"] | None = None,
    settings: Settings = DEFAULTS,
    history: bool = False,
) -> tuple[Field, Scalar | Float[Array, "steps"]]:
    """Recovers one object from its CDPs by one of the `SOLVERS`.

    This is a pure function with a static number of steps. It can be jitted and vmapped as it is,
    and it is differentiable in its arrays. A global phase of `start` passes on to the result of
    every solver, since no measurement holds it; only an "amplitude" object is returned with a real,
    positive mean.

    Args:
        intensity: CDPs y, in the squared unit of the object; negative pixels count as 0.
        optics: Optics of the measurement.
        start: A spectral estimate, a network's answer, `random_start`, or any other field.
        solver: One of `SOLVERS`, by name or itself.
        steps: At least 1. A step costs one propagation to the sensor and one back.
        scene: What is known of the object, one of `CONSTRAINTS`: "phase" (modulus 1), "amplitude"
            (real and not negative), "complex" (modulus in [`min_amplitude`, 1]) or "none".
        min_amplitude: Smallest amplitude of a "complex" object.
        support: Pixels where the object may be other than zero; None for all.
        settings: Numbers of the solver. A total-variation weight of 0.01 to 0.1 of the object's
            modulus is a lot.
        history: Whether to return the misfit after every step, at the cost of one more propagation
            a step.

    Returns:
        The recovered field and its `amplitude_misfit`; with `history` the misfit after each step.

    Raises:
        ValueError: If shapes do not belong together, `steps` is less than 1, or a name is unknown.
    """
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}")
    require_projection(solver, optics)
    data = measured(intensity, optics)

    def constrain(field: Field) -> Field:
        return project_object(field, scene=scene, min_amplitude=min_amplitude, support=support)

    build = SOLVERS[solver] if isinstance(solver, str) else solver
    method = build(data, constrain, settings)
    # For gradients through a solver, only the states are stored; the rest of a step is recomputed.
    step = jax.checkpoint(method.step)

    def misfit(field: Field) -> Scalar:
        made = Optics(data.phasors, optics.path)
        return amplitude_misfit(field, intensity, made)

    def recorded(state, number):
        state = step(state, number)
        return state, misfit(method.read(state))

    misfits = None
    if history:
        state, misfits = lax.scan(recorded, method.begin(start), jnp.arange(steps))
    else:
        state = lax.fori_loop(0, steps, lambda n, state: step(state, n), method.begin(start))
    field = method.read(state)
    if scene == "amplitude":
        field = fix_global_phase(field, gauge="mean")
    return field, misfit(field) if misfits is None else misfits


def solver_names(flag: str, names: list[str]) -> tuple[str, ...]:
    """Checks the value of a flag that lists solvers, each at most once.

    Raises:
        InputError: If one is unknown or comes twice.
    """
    for name in names:
        if is_foreign(name):
            allow(name)  # a solver that the user names may run
            try:
                SOLVERS[name]
            except InputError as failure:
                raise InputError(f"{flag}: {failure}") from failure
        elif name not in SOLVERS:
            raise InputError(f"{flag}: expected some of {', '.join(SOLVERS)}, got {name!r}")
    if len(set(names)) < len(names):
        raise InputError(f"{flag}: expected each solver once, got {','.join(names)}")
    return tuple(names)


def reads(solver: str, number: str) -> bool:
    """Returns whether a solver reads one of `READ_BY`; one of the user's own may read any."""
    return is_foreign(solver) or solver in READ_BY[number]


def require_projection(solver: str | Solver, optics: Optics) -> None:
    """Refuses a solver that needs exact projections where A^H A is not diagonal.

    Raises:
        InputError: If so; the message names solvers that work.
    """
    if solver in PROJECTING and not is_unitary(optics.path):
        raise InputError(
            f"{solver}: projects exactly, which a camera window (sensor.*), crosstalk "
            "(device.crosstalk), a moved mask (mount.*) or one at a distance from the object "
            "(propagation.gap) does not allow; take accelerated, error_reduction or another one"
        )


def amplitude_misfit(field: Field, intensity: Intensity, optics: Optics) -> Scalar:
    """Returns norm(abs(A x) - sqrt(y)) / norm(sqrt(y)): 0 for a perfect fit, 1 for a dark field.

    A wrong object can have a small misfit too, where few shots do not determine the object or
    where noise is fitted. If all frames are dark, it is the norm of abs(A x).

    Args:
        field: x, in the unit of the square root of `intensity`.
        intensity: CDPs y; negative pixels count as 0.
        optics: Optics of the measurement.

    Raises:
        ValueError: If the shapes do not belong together.
    """
    check_sensor(intensity.shape, optics.masks.shape, optics.path)
    phasors = as_phasors(optics.masks)
    spectra = propagate(field, phasors, intensity.shape[1:], optics.path)
    positive = jnp.maximum(intensity, 0.0)
    energy = jnp.sum(positive)
    missing = safe_sqrt(intensity_of(spectra)) - safe_sqrt(positive)
    return safe_sqrt(jnp.sum(jnp.square(missing)) / jnp.where(energy > 0, energy, 1.0))


def random_start(key: Key, intensity: Intensity, optics: Optics) -> Field:
    """Draws a complex normal field, scaled to the norm that the intensity implies."""
    power = mask_power(as_phasors(optics.masks), optics.path)
    drawn = jax.random.normal(key, power.shape, jnp.result_type(intensity, jnp.complex64))
    energy = jnp.sum(jnp.maximum(intensity, 0.0)) / jnp.mean(power)
    return safe_sqrt(energy) / jnp.linalg.norm(drawn) * drawn
