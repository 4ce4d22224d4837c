"""What must hold between the options of a config: ranges, and fields that must fit each other."""

import itertools
import math
from collections.abc import Callable

from jax_kdpr.config import schema
from jax_kdpr.config.schema import Config
from jax_kdpr.core import options as config_fields
from jax_kdpr.core.choices import (
    NoiseKind,
    Norm,
    PropagationKind,
    Regime,
    SceneKind,
    Source,
    StudentStart,
    Unit,
    Weights,
)
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import LENGTHS, POSITIVE_LENGTHS, Range, require
from jax_kdpr.core.options import flatten

MOST_LEVELS = 12  # of a U-Net: each halves the size
NEAR_FIELD = (PropagationKind.FRESNEL, PropagationKind.ANGULAR_SPECTRUM)
# Options that are read only together with a choice elsewhere. Setting one without it is refused, or
# its owner would believe in noise, images or levels that are not there.
READ_ONLY_WITH = {
    "data.dir": ("data.source", (Source.FASHION_MNIST, Source.IMAGES)),
    "data.tfds_manual_dir": ("data.source", (Source.FASHION_MNIST,)),
    **{
        f"data.{name}": ("data.source", (Source.IMAGES,))
        for name in (
            *("rescale", "fit", "unit", "subfolders"),
            *("validation_fraction", "test_fraction"),
        )
    },
    "scene.min_amplitude": ("scene.kind", (SceneKind.COMPLEX,)),
    "noise.snr_db": ("noise.kind", (NoiseKind.GAUSSIAN,)),
    "noise.photons": ("noise.kind", (NoiseKind.POISSON, NoiseKind.CAMERA)),
    **{
        f"noise.{name}": ("noise.kind", (NoiseKind.CAMERA,))
        for name in ("read_noise", "dark", "full_well", "bits")
    },
    **{f"propagation.{name}": ("propagation.kind", NEAR_FIELD) for name in LENGTHS},
    "distill.targets": ("regime", (Regime.STUDENT,)),
    "distill.start": ("regime", (Regime.STUDENT,)),
    "spectral.fraction": ("spectral.weights", (Weights.TOPK,)),
    "spectral.threshold": ("spectral.weights", (Weights.THRESHOLD,)),
}


def ready(config: Config, *, stand_in_teacher: str = "") -> Config:
    """Returns a checked copy of a config, its paths absolute.

    A student that names no teacher gets `stand_in_teacher`, for what reads no teacher.

    Raises:
        InputError: If it does not validate.
    """
    config = schema.check_types(config)
    schema.resolve_paths(config)
    if config.regime == Regime.STUDENT:
        config.distill.teacher = config.distill.teacher or stand_in_teacher
    validate(config)
    return config


def validate(config: Config) -> None:
    """Checks what single types cannot: ranges, and fields that must fit each other.

    Raises:
        InputError: One line: field, expected, got, what to do.
    """
    c = config

    def need(holds, message):
        if not holds:
            raise InputError(message)

    config_fields.check_ranges(c)
    if c.data.unit == Unit.RADIANS:
        need(
            c.scene.kind == SceneKind.PHASE,
            f"data.unit: radians are of scene.kind phase, got {c.scene.kind}; set it to fraction",
        )
        need(not c.data.rescale, "data.rescale: leaves no radians; leave out data.unit=radians")
    _validate_device(c, need)
    if c.propagation.kind in NEAR_FIELD:
        for name in LENGTHS:
            require(
                f"propagation.{name}",
                getattr(c.propagation, name),
                POSITIVE_LENGTHS[name],
                unit="metres",
            )
    need(
        c.spectral.filter_size % 2 == 1 and c.spectral.filter_size <= c.data.size,
        f"spectral.filter_size: expected an odd number up to data.size = {c.data.size}, "
        f"got {c.spectral.filter_size}",
    )
    need(
        2 <= len(c.net.widths) <= MOST_LEVELS,
        f"net.widths: expected 2 to {MOST_LEVELS} widths, got {len(c.net.widths)}",
    )
    if c.net.norm == Norm.GROUP:
        need(
            all(width % 8 == 0 for width in c.net.widths),
            f"net.widths: norm group wants multiples of 8, got {c.net.widths}",
        )
    factor = 2 ** (len(c.net.widths) - 1)
    below = c.data.size // factor * factor
    need(
        c.data.size % factor == 0,
        f"data.size: expected a multiple of {factor} for a U-Net of {len(c.net.widths)} widths, "
        f"got {c.data.size}; set it to {f'{below} or ' if below else ''}{below + factor}, "
        "or change net.widths",
    )
    need(
        c.train.devices == 0
        or (c.train.batch_size % c.train.devices == c.train.eval_batch_size % c.train.devices == 0),
        f"train.devices: expected a divisor of train.batch_size = {c.train.batch_size} and "
        f"train.eval_batch_size = {c.train.eval_batch_size}, got {c.train.devices}; leave it 0",
    )
    flat, default = flatten(c), flatten(Config())
    for path, (choice, readers) in READ_ONLY_WITH.items():
        need(
            flat[path] == default[path] or flat[choice] in readers,
            f"{path}: is read only with {choice} {' or '.join(readers)}, got {flat[path]!r} with "
            f"{flat[choice]}; set {choice}, or leave {path} out",
        )
    if c.regime == Regime.STUDENT:
        sigma = 1 - c.loss.alpha - c.loss.beta
        for path in ("loss.alpha", "loss.beta"):
            require(path, flat[path], Range(0, 1))
        need(
            sigma > -1e-9,
            "loss: expected sigma = 1 - alpha - beta in [0, 1], got "
            f"{sigma:.6g} (alpha = {c.loss.alpha:g}, beta = {c.loss.beta:g}); lower one of them",
        )
        if c.loss.alpha == 1:  # and so beta = sigma = 0
            need(
                c.distill.targets == default["distill.targets"],
                "distill.targets: is read only where the guiding losses have a weight, got "
                "loss.alpha = 1; lower it, or leave that out",
            )
            need(
                c.distill.start != StudentStart.NONE,
                "loss.alpha: a student of loss.alpha = 1 and distill.start none takes nothing from "
                "its teacher; lower loss.alpha, set distill.start, or train it as regime e2e",
            )
        need(
            bool(c.distill.teacher),
            "distill.teacher: a student needs the run folder of a trained teacher, got none; "
            "train one with regime teacher, then set --config.distill.teacher=RUN_DIR",
        )
    else:
        require("loss.alpha", c.loss.alpha, Range(0, math.inf, "()"))
        need(
            c.loss.beta == 0 and not c.distill.teacher,
            f"loss.beta, distill.teacher: only regime student has a teacher, got {c.loss.beta:g} "
            f"and {c.distill.teacher!r} with regime {c.regime}; unset them or set regime=student",
        )


def _validate_device(c: Config, need: Callable[[bool, str], None]) -> None:
    device, turn = c.device, math.tau
    need(
        device.levels == 0 or device.levels >= 2,
        f"device.levels: expected 0 (any phase) or at least 2, got {device.levels}",
    )
    need(
        len(device.table) != 1,
        f"device.table: expected the phase of each of two or more gray levels, got {device.table}",
    )
    need(
        not device.table or (device.levels == 0 and device.phase_range == turn),
        "device.table: stands in place of device.levels (0 with it) and device.phase_range (2 pi "
        f"with it), got {device.levels} levels and {device.phase_range:g} radians beside it; set "
        "device.levels=0, or the range to its default",
    )
    need(
        c.data.size % device.superpixel == 0,
        f"device.superpixel: expected a divisor of data.size = {c.data.size}, got "
        f"{device.superpixel}",
    )


def training_bytes(c: Config) -> int:
    """Returns the least memory that a training takes: masks, network, and what one batch needs.

    Both are there four times (the value, its gradient, two means of Adam). Of a batch only its
    shots and the first feature maps are counted, on one of the devices.
    """
    widths = c.net.widths
    masks = c.masks.snapshots * c.data.size**2
    network = sum(9 * one * other for one, other in itertools.pairwise(widths))
    shots = c.masks.snapshots * (c.data.size * c.masks.oversample) ** 2
    maps = widths[0] * c.data.size**2
    batch = -(-c.train.batch_size // max(1, c.train.devices))
    return 4 * (4 * (masks + network) + batch * (shots + maps))
