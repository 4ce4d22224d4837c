"""How a trained system tolerates errors of its bench: one error at a time, and random benches.

Only the measurement changes. The masks, the network, and the optics that the recovery assumes stay
as they are.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy import stats

from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import MOST_COUNT, SEEDS, Range
from jax_kdpr.core.metrics import rms_header
from jax_kdpr.core.options import changed, check, described, option, section
from jax_kdpr.core.progress import progress
from jax_kdpr.core.types import Images, Intensities, Key, RawImages, Scalar
from jax_kdpr.evaluation.scores import RECOVERED, Score, make_score
from jax_kdpr.optics.cdp import Optics
from jax_kdpr.optics.misalignment import (
    CAREFUL,
    OF_GAUSSIAN,
    SPREADS,
    JitterOptions,
    Perturbation,
    draw,
)
from jax_kdpr.optics.noise import NoiseOptions, add_noise
from jax_kdpr.runs.run import Run


class Quality(NamedTuple):
    """Quality of images: one value an image, or their mean."""

    psnr: Float[np.ndarray, "*n"]  # dB
    rms: Float[np.ndarray, "*n"]  # over the object (`metrics.ImageScores`)


Measure = Callable[[Perturbation, float, Key], Quality]
"""measure(by, photons, key) -> quality of each image; photons = 0 takes the run's own noise."""

# The points of each curve, in the units of `Perturbation`; for photons, their number in a shot.
GRIDS: dict[str, tuple[float, ...]] = {
    "shift": (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 1.0),
    "rotation": (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0),
    "scale": (0.0, 0.002, 0.005, 0.01, 0.02, 0.05),
    "defocus": (0.0, 0.02, 0.05, 0.1, 0.2, 0.5),
    "wavelength": (0.0, 0.002, 0.005, 0.01, 0.02, 0.05),
    "gain": (0.0, 0.01, 0.02, 0.05, 0.1, 0.2),
    "beam": (0.0, 0.02, 0.05, 0.1, 0.2),
    "waist": (0.0, 0.02, 0.05, 0.1, 0.2),
    "wavefront": (0.0, 0.1, 0.2, 0.5, 1.0),
    "photons": (1e7, 1e6, 1e5, 3e4, 1e4),
}
UNITS = {name: about.unit or "relative" for name, about in described(JitterOptions()).items()}
UNITS["photons"] = "photons a shot"


@section
class Request:
    """What to measure."""

    errors: tuple[str, ...] = option(
        tuple(kind for kind in GRIDS if kind not in ("beam", "waist", "wavefront")),
        "Errors to draw curves of; beam and waist are of a Gaussian beam.",
    )
    benches: int = option(200, "Random benches; 0: curves only.", within=Range(0, MOST_COUNT))
    spread: tuple[str, ...] = option(
        (), "Standard deviations, such as shift=0.3,rotation=0.5; default: a careful bench's."
    )
    loss: float = option(1.0, "dB that a good bench may lose.", within=Range(0, 1000))
    target: float | None = option(
        None, "PSNR in dB of a good bench, in place of --loss.", within=Range(-1000, 1000)
    )
    images: int = option(128, "Test images of each bench.", within=Range(1, 10_000_000))
    seed: int = option(0, "Of the benches and of the noise.", within=SEEDS)

    @property
    def spreads(self) -> dict[str, float]:
        """Standard deviations of the random benches."""
        return read_spreads(self.spread)


def check_request(request: Request) -> None:
    """Refuses invalid spreads, errors that have no curve, and a request that measures nothing.

    Raises:
        InputError: With the name of the flag of `tolerance`.
    """
    read_spreads(request.spread)
    unknown = sorted(set(request.errors) - set(GRIDS))
    if unknown or not (request.errors or request.benches):
        got = repr(unknown[0]) if unknown else "none, and no --benches"
        raise InputError(f"--errors: expected some of {', '.join(GRIDS)}, got {got}")


def read_spreads(given: tuple[str, ...]) -> dict[str, float]:
    """Returns the standard deviations of --spread, such as ("shift=0.3",); default `CAREFUL`.

    Errors that --spread does not name have a standard deviation of 0.

    Raises:
        InputError: If a name is unknown, or a value is outside the range in `JitterOptions`.
    """
    if not given:
        return dict(CAREFUL)
    spreads = {}
    try:
        for item in given:
            name, _, value = item.partition("=")
            spreads[name] = float(value)
        jitter = JitterOptions(**spreads)
    except (TypeError, ValueError):
        raise InputError(
            f"--spread: expected NAME=NUMBER with names of {', '.join(SPREADS)}, got "
            f"{','.join(given)!r}"
        ) from None
    check(jitter, before="--spread: ")
    return spreads


def make_measure(run: Run, images: RawImages) -> Measure:
    """Builds measure(by, photons, key), which recovers test images from one bench.

    `by` holds all errors of the bench. The noise is that of the run's sensor. With `photons`, a
    camera gets this number in place of its own, and any other noise is replaced by Poisson noise.
    The run must be on one device; it recovers as it was trained to.
    """
    own = run.camera.noise
    counted = own if own.kind == "camera" else NoiseOptions(kind="poisson")
    quiet = run.camera.quiet

    def make(noise_of: Callable[[Scalar], NoiseOptions]) -> Score:
        def shoot(optics: Optics, images: Images, key: Key, condition) -> Intensities:
            by, photons = condition
            clean = quiet.measure(optics, images, key, by)
            keys, noise = jax.random.split(key, len(images)), noise_of(photons)
            return jax.vmap(lambda key, y: add_noise(key, y, noise))(keys, clean)

        return make_score(run, images, shoot)

    with_own = make(lambda _: own)
    with_photons = make(lambda photons: changed(counted, photons=photons))

    def measure(by: Perturbation, photons: float, key: Key) -> Quality:
        score = with_photons if photons else with_own
        condition = jax.tree.map(jnp.float32, by), jnp.float32(photons)
        scores = score(condition, key)[RECOVERED]
        return Quality(np.asarray(scores.psnr), np.asarray(scores.rms))

    return measure


def error_curves(
    measure: Measure, key: Key, *, kinds: tuple[str, ...]
) -> dict[str, dict[float, Quality]]:
    """Returns {kind: {size of the error: mean quality}}, one error at a time, over `GRIDS`.

    The quality is the mean over both signs of the error. It is also the mean over the axes of a
    shift, and over the polynomials of a wavefront, which are applied one at a time.
    """
    curves: dict[str, dict[float, Quality]] = {}
    points = [(kind, value) for kind in kinds for value in GRIDS[kind]]
    for kind, value in progress(points, desc="one error at a time", unit="point"):
        benches = [Perturbation()]
        if kind != "photons" and value:
            benches = [
                Perturbation(**{name: sign * value}) for name in SPREADS[kind] for sign in (1, -1)
            ]
        photons = value if kind == "photons" else 0.0
        found = [measure(by, photons, key) for by in benches]
        curves.setdefault(kind, {})[value] = Quality(*np.mean(found, axis=(0, 2)))
    return curves


def random_benches(
    measure: Measure, key: Key, *, count: int, spreads: Mapping[str, float]
) -> Quality:
    """Returns the mean quality over the images of each of `count` benches drawn at random.

    `spreads` has standard deviations by their names in `JitterOptions`. The same key gives the same
    benches for every system.
    """
    bench_key, noise_key = jax.random.split(key)
    found = []
    for number in progress(range(count), desc="random benches", unit="bench"):
        by = draw(jax.random.fold_in(bench_key, number), JitterOptions(**spreads))
        found.append(np.mean(measure(by, 0.0, noise_key), axis=1))
    return Quality(*np.array(found).T)


def share_above(psnr: Float[np.ndarray, "benches"], threshold: float) -> dict[str, float]:
    """Returns the share of benches of at least `threshold` dB, with its 95 % interval (Wilson)."""
    good = int(np.sum(psnr >= threshold))
    low, high = stats.binomtest(good, len(psnr)).proportion_ci(0.95, method="wilson")
    share = {"share": good / len(psnr), "low": float(low), "high": float(high)}
    return share | {"threshold": threshold, "benches": len(psnr)}


def require_beam(run: Run, request: Request) -> None:
    """Refuses errors of a Gaussian beam if a run has another illumination.

    Raises:
        InputError: With the name of the flag of `tolerance`.
    """
    kind = run.config.illumination.kind
    asked = {"--errors": request.errors, "--spread": [n for n, s in request.spreads.items() if s]}
    for flag, names in asked.items():
        if kind != "gaussian" and (found := [name for name in names if name in OF_GAUSSIAN]):
            raise InputError(
                f"{flag}: {found[0]} is of a Gaussian beam, got illumination.kind={kind} in "
                f"{run.workdir}; leave it out"
            )


def measure_run(run: Run, request: Request) -> dict[str, Any]:
    """Returns PSNR and rms of the design, of the curves, and of each random bench of one run."""
    test = run.dataset.test[: request.images]
    alone = replace(run.on_one_device(), batch_size=min(run.batch_size, len(test)))
    measure = make_measure(alone, test)
    key = jax.random.key(request.seed)
    design = np.mean(measure(Perturbation(), 0.0, jax.random.split(key)[1]), axis=1)
    curves = error_curves(measure, key, kinds=request.errors)
    result: dict[str, Any] = {
        "design_psnr": float(design[0]),
        "design_rms": float(design[1]),
        "rms": rms_header(run.config.scene.kind),
    }
    for name, metric in (("curves", "psnr"), ("rms_curves", "rms")):
        result[name] = {
            kind: {value: float(getattr(found, metric)) for value, found in curve.items()}
            for kind, curve in curves.items()
        }
    if request.benches:
        found = random_benches(measure, key, count=request.benches, spreads=request.spreads)
        loses = result["design_psnr"] - request.loss
        threshold = loses if request.target is None else request.target
        result["bench_psnr"], result["bench_rms"] = found.psnr.tolist(), found.rms.tolist()
        result["yield"] = share_above(found.psnr, threshold)
    return result
