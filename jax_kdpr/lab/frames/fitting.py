"""Fits the optics of a bench to frames of known objects, by differentiating through the camera.

The fit compares amplitudes at the model's samples, in the camera's counts:

    misfit(v) = norm(sqrt(unit y(v) E + offset) - sqrt(seen(v))) / norm(sqrt(seen(v)))

Here y are the CDPs of the fitted camera (`optics.camera`), E is the envelope of the mask's pixels,
and seen are the frames, read where the fitted geometry says. Each parameter differs from its start
by v times its `width`, which is how far a bench may well be off. (For a factor, its logarithm
does.)

The misfit has many local minima. SciPy's trust-region least squares therefore begins from every
orientation and defocus of a grid, where a weak prior, norm(`PRIOR` v), holds it near the start. It
continues from the best few, at last with a much weaker prior. JAX differentiates with respect to
the parameters of the optics; for the place on the camera, finite differences are taken.
"""

import math
from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import optimize

from jax_kdpr.core.progress import progress
from jax_kdpr.core.types import Phases
from jax_kdpr.lab.frames.geometry import (
    ORIENTATIONS,
    Geometry,
    Orientation,
    frame_spline,
    pixel_envelope,
    sample_spline,
    sensor_points,
)
from jax_kdpr.lab.frames.parameters import (
    FITTED,
    Options,
    fitted_camera,
    starting_options,
    value_of,
)
from jax_kdpr.lab.frames.registration import lead
from jax_kdpr.optics.camera import Camera, uncentred

PRIOR = 0.02
FIRST, LAST = 12, 80  # evaluations from each start, and from the best of them
KEPT = 3  # best starts, from which the fit continues
MIN_SCORE = 0.94  # wrong objects reach 0.92 (results/measured)
MIN_LEAD = 1.3  # `registration.lead` over the best other orientation
STEP = 1e-3  # of v, for finite differences
NOTHING = 1e-15  # of the largest eigenvalue; below, a combination of parameters changes nothing
DARK = 1e-9  # of the mean light; the least light, so that a dark sample has a derivative
DEFOCUS_STARTS = (0.0, 1.5, -1.5, 3.0, -3.0, 6.0, -6.0)  # rad rms from the design's
PLACE = ("centre_y", "centre_x", "rotation", "scale")  # of `Geometry`, always fitted


class Shot(NamedTuple):
    """A known object and its frames, corrected and joined."""

    image: Float[Array, "h w c"]
    lights: list[Float[np.ndarray, "wh ww"]]  # one per snapshot


class Fit(NamedTuple):
    """What was found."""

    geometry: Geometry  # in the pixels of the lights
    optics: Options  # all options that were fitted
    counts_per_unit: float
    offset: float  # counts of a pixel of the lights
    score: float  # correlation of the amplitudes
    runner_up: float  # score of the best other orientation; 0 if only one was tried
    errors: dict[str, tuple[float, float]]  # value and error bar of each parameter

    @property
    def trusted(self) -> bool:
        """Whether to trust the fit, as far as score and runner-up say."""
        return self.score >= MIN_SCORE and lead(self.score, self.runner_up) >= MIN_LEAD


def fit_optics(
    shots: list[Shot],
    camera: Camera,
    phases: Phases,
    start: Geometry,
    names: Sequence[str],
    *,
    pixel_side: float,
    sampling: str,
    orientations: Sequence[Orientation] = ORIENTATIONS,
) -> Fit:
    """Fits a camera's optics, and the place of its pattern, to frames of known objects.

    Args:
        shots: Shots that are fitted together.
        camera: Camera of the design.
        phases: Its masks.
        start: Approximate place of the pattern, in the pixels of the lights.
        names: Some of `FITTED`.
        pixel_side: Side of the mask's pixels (`geometry.pixel_envelope`).
        sampling: As in `geometry.to_sensor`.
        orientations: Orientations to try.

    Raises:
        InputError: If the camera has no such parameter.
    """
    problem = Problem(shots, camera, phases, names, pixel_side=pixel_side, sampling=sampling)
    defocus = DEFOCUS_STARTS if "defocus" in names else (0.0,)
    first: list[State] = []
    for (flip, transpose), by in progress(list(product(orientations, defocus)), desc="fit"):
        begun = problem.begin(start._replace(flip=flip, transpose=transpose), defocus=by)
        first.append(problem.descend(begun, prior=PRIOR, evaluations=FIRST))
    first.sort(key=lambda state: state.misfit)
    best = {state.orientation: state for state in reversed(first)}
    near = {
        lie: problem.descend(state, prior=PRIOR, evaluations=LAST // 2)
        for lie, state in progress(best.items(), desc="orientations")
    }
    own = min(near, key=lambda lie: near[lie].misfit)
    ends = []
    for state in progress(
        [state for state in first if state.orientation == own][:KEPT], desc="best"
    ):
        held = problem.descend(state, prior=PRIOR, evaluations=LAST)
        ends.append(problem.descend(held, prior=PRIOR / 20, evaluations=LAST))
    end = min(ends, key=lambda state: state.misfit)
    others = [problem.score(state) for lie, state in near.items() if lie != own]
    return problem.read(end, runner_up=max(others, default=0.0))


class State(NamedTuple):
    """The state of a descent."""

    start: Geometry
    origin: Float[np.ndarray, "p"]  # parameters, unit and offset at v = 0
    v: Float[np.ndarray, "q"]  # of the parameters, unit, offset, and `PLACE`
    misfit: float = math.inf

    @property
    def orientation(self) -> Orientation:
        """(flip, transpose)."""
        return self.start.flip, self.start.transpose


class Problem:
    """The residuals, modelled less measured amplitudes, and their derivatives by `State.v`."""

    def __init__(
        self,
        shots: list[Shot],
        camera: Camera,
        phases: Phases,
        names: Sequence[str],
        *,
        pixel_side: float,
        sampling: str,
    ):
        self._sampling, self._sensor, self._axis = sampling, camera.sensor, camera.axis
        self._parameters = [one for name in names for one in FITTED[name]]
        self._base = starting_options(camera, self._parameters)
        self._splines = [frame_spline(one, sampling=sampling) for s in shots for one in s.lights]
        images = jnp.stack([shot.image for shot in shots])
        seen_as = pixel_envelope(sensor_points(camera.sensor), camera.spacing, pixel_side)
        envelope = jnp.asarray(uncentred(seen_as, camera.axis), jnp.float32)
        lit = float(np.mean([spline.mean() for spline in self._splines]))
        self._widths = np.array([one.width for one in self._parameters] + [0.3, 0.03 * lit])
        self._factors = np.array([one.factor for one in self._parameters] + [True, False])
        self._new = min(1.0, (camera.step / 0.5) ** 2)  # share of independent samples
        free = [True] * len(self._parameters) + [True, "offset" in names] + [True] * len(PLACE)
        self._free = np.flatnonzero(free)

        def amplitudes(origin, v):
            """Returns the amplitudes of each frame at each sample, from the optics alone."""
            values = self._values(origin, v)
            fitted = fitted_camera(camera, self._options(values))
            clean = jax.vmap(partial(fitted.clean, fitted.optics(phases)))
            light = clean(images) * envelope[None, None]
            light = values[-2] * light + values[-1]
            return jnp.sqrt(jnp.maximum(light, DARK * jnp.mean(light))).ravel()

        self._amplitudes = jax.jit(amplitudes)
        self._slopes = jax.jit(jax.jacfwd(amplitudes, argnums=1))

    def begin(self, geometry: Geometry, *, defocus: float) -> State:
        """Returns a state at the design's optics plus a defocus, with the best unit."""
        origin = [value_of(one, self._base) for one in self._parameters]
        origin = [
            value + defocus * (one.option == "zernike" and one.number == 3)
            for value, one in zip(origin, self._parameters, strict=True)
        ]
        state = State(geometry, np.array([*origin, 1.0, 0.0]), np.zeros(len(origin) + 2 + 4))
        known, seen = self._modelled(state), self._seen(state)
        unit = (np.sum(known * seen) / max(np.sum(known**2), 1e-30)) ** 2
        return state._replace(origin=np.array([*origin, max(unit, 1e-30), 0.0]))

    def descend(self, state: State, *, prior: float, evaluations: int) -> State:
        """Descends from a state by trust-region least squares; a prior pulls v towards 0."""
        free = self._free

        def at(x: np.ndarray) -> State:
            v = state.v.copy()
            v[free] = x
            return state._replace(v=v)

        def residuals(x: np.ndarray) -> np.ndarray:
            return np.concatenate([self._residuals(at(x)), prior * x])

        def slopes(x: np.ndarray) -> np.ndarray:
            return np.concatenate([self._jacobian(at(x)), prior * np.eye(len(x))])

        found = optimize.least_squares(
            residuals,
            state.v[free],
            slopes,  # type: ignore[arg-type]
            max_nfev=evaluations,
            xtol=1e-6,
            ftol=1e-7,
        )
        end = at(found.x)
        return end._replace(misfit=float(np.linalg.norm(self._residuals(end))))

    def score(self, state: State) -> float:
        """Returns the correlation of modelled and measured amplitudes."""
        return float(np.corrcoef(self._modelled(state), self._seen(state))[0, 1])

    def read(self, state: State, *, runner_up: float) -> Fit:
        """Returns what a state says of the bench, with error bars.

        The bars are those of a linear fit whose scatter is the remaining misfit: noise, and what
        the model lacks. Samples finer than half a cycle of the object's side are not independent.
        """
        given = jnp.asarray(state.origin), jnp.asarray(state.v)
        values = np.asarray(self._values(*given), float).tolist()
        options = self._options(values)
        jacobian, misfit = self._jacobian(state), self._residuals(state)
        scatter = np.sum(misfit**2) / max(len(misfit) - len(self._free), 1) / self._new
        strengths, axes = np.linalg.eigh(jacobian.T @ jacobian)
        variances = scatter / np.maximum(strengths, NOTHING * strengths[-1])
        bars = dict(zip(self._free.tolist(), np.sqrt(axes**2 @ variances), strict=True))
        errors = {}
        for number, one in enumerate(self._parameters):
            factor = values[number] if one.factor else 1.0
            errors[one.name] = (values[number], float(bars[number] * one.width * factor))
        geometry = self._geometry(state)
        return Fit(
            geometry,
            options,
            counts_per_unit=values[-2],
            offset=values[-1] / geometry.scale**2,
            score=self.score(state),
            runner_up=runner_up,
            errors=errors,
        )

    def _values(self, origin: Array, v: Array) -> Array:
        """Returns the values of the parameters, the unit and the offset."""
        moved = self._widths * v[: len(self._widths)]
        return jnp.where(self._factors, origin * jnp.exp(moved), origin + moved)

    def _options(self, values: Array | list[float]) -> Options:
        """Returns the values as options by section; numbers of a tuple become one tuple."""
        options = {section: dict(known) for section, known in self._base.items()}
        for value, one in zip(values, self._parameters, strict=False):
            section = options[one.section]
            if one.number is None:
                section[one.option] = value
            else:
                numbers = list(section[one.option])
                numbers[one.number] = value
                section[one.option] = tuple(numbers)
        return options

    def _geometry(self, state: State) -> Geometry:
        """Returns the geometry; 1 in a number of v moves the pattern's edge by about a sample."""
        start, half = state.start, max(self._sensor) / 2
        y, x, rotation, scale = state.v[-len(PLACE) :]
        return start._replace(
            centre_y=float(start.centre_y + y * start.scale),
            centre_x=float(start.centre_x + x * start.scale),
            rotation=float(start.rotation + np.rad2deg(rotation / half)),
            scale=float(start.scale * np.exp(scale / half)),
        )

    def _modelled(self, state: State) -> Float[np.ndarray, "m"]:
        return np.asarray(self._amplitudes(state.origin, state.v), float)

    def _seen(self, state: State) -> Float[np.ndarray, "m"]:
        geometry = self._geometry(state)
        read = [
            sample_spline(spline, geometry, self._sensor, sampling=self._sampling)
            for spline in self._splines
        ]
        return np.sqrt(np.maximum(uncentred(np.stack(read), self._axis), 0.0)).ravel()

    def _residuals(self, state: State) -> Float[np.ndarray, "m"]:
        seen = self._seen(state)
        return (self._modelled(state) - seen) / max(float(np.linalg.norm(seen)), 1e-30)

    def _jacobian(self, state: State) -> Float[np.ndarray, "m q"]:
        modelled, seen = self._modelled(state), self._seen(state)
        size = max(float(np.linalg.norm(seen)), 1e-30)
        slopes = np.asarray(self._slopes(state.origin, state.v), float) / size
        for number in range(len(state.v) - len(PLACE), len(state.v)):
            v = state.v.copy()
            v[number] += STEP
            moved = self._seen(state._replace(v=v))
            after = (modelled - moved) / max(float(np.linalg.norm(moved)), 1e-30)
            slopes[:, number] = (after - (modelled - seen) / size) / STEP
        return slopes[:, self._free]
