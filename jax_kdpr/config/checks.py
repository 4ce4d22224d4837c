"""Checks of a config: the ranges of its options, and options that must fit each other."""

import itertools
import math
from pathlib import Path
from typing import Any

from jax_kdpr.config import schema
from jax_kdpr.config.schema import Config
from jax_kdpr.core import json_files, options
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import LENGTHS, POSITIVE_LENGTHS, SHARE, Range, need, require, shown
from jax_kdpr.core.registry import allow
from jax_kdpr.optics.beam import OF_A_FILE, AberrationOptions
from jax_kdpr.optics.device import POINTS, TURN
from jax_kdpr.optics.propagation import PROPAGATORS, Propagator
from jax_kdpr.optics.window import SensorOptions, samples_of_pattern
from jax_kdpr.recovery.networks.network import NETWORKS

# The options that `training_bytes` counts, for messages.
MEMORY = "data.size, masks.snapshots, masks.oversample, sensor, net.widths, train.batch_size"


def ready(config: Config, *, stand_in_teacher: str = "", has_network: bool = True) -> Config:
    """Returns a checked copy of a config of the user's own, with absolute paths.

    Foreign code that it names is allowed to run. A student that names no teacher gets
    `stand_in_teacher`; this is for callers that do not read the teacher.

    Where a solver recovers and there is no network (`has_network`), what a training alone reads is
    set aside, and the size of the masks need not fit a U-Net.

    Raises:
        InputError: If the config is not valid.
    """
    config = typed(config)
    schema.resolve_paths(config)
    config = _with_bench(config)
    if not has_network:
        config.loss = schema.LossOptions()
        if config.regime == "student":
            config.regime, config.distill = "e2e", schema.DistillOptions()  # of the same masks
    if config.regime == "student":
        config.distill.teacher = config.distill.teacher or stand_in_teacher
    validate(config, has_network=has_network)
    return config


def typed(config: Config) -> Config:
    """Returns a copy of a config of the user's own, whose foreign code is allowed to run.

    Raises:
        InputError: If an option is unknown or of the wrong type.
    """
    config = schema.check_types(config)
    allow(options.foreign_names(config).values())
    return config


def read_optics(path: Path) -> dict[str, dict[str, Any]]:
    """Reads the options of a bench's optics, by section, from a calibration file.

    Raises:
        InputError: If the file holds none.
    """
    remedy = "make it with jax_kdpr.calibrate --fit"
    return json_files.read_json(path, {"optics": {str: dict}}, remedy=remedy)["optics"]


def _with_bench(config: Config) -> Config:
    """Returns a config with the optics that its calibration has fitted, if it names one."""
    if not config.optics:
        return config
    optics = read_optics(Path(config.optics))
    try:
        other = schema.with_optics(config, optics)
        schema.resolve_paths(other)
        options.check(other)
    except InputError as failure:
        raise InputError(f"optics: {config.optics!r}: {failure}") from failure
    given, default, wanted = (options.flatten(one) for one in (config, Config(), other))
    for section, values in optics.items():
        for path in (f"{section}.{name}" for name in values):
            need(
                given[path] in (default[path], wanted[path]),
                f"{path}: {config.optics!r} gives {shown(wanted[path])}, got "
                f"{shown(given[path])} beside it; leave out one of the two",
            )
    return other


def validate(config: Config, *, has_network: bool = True) -> None:
    """Checks what types alone cannot: ranges, and fields that must fit each other.

    Raises:
        InputError: One line: field, expected, got, what to do.
    """
    c = config
    options.check(c)
    need(
        isinstance(PROPAGATORS[c.propagation.kind], Propagator),
        f"propagation.kind: expected a Propagator, got {c.propagation.kind}, which is none",
    )
    need(
        c.masks.start != "file" or bool(c.masks.file),
        "masks.file: goes with masks.start=file, got none; give its path",
    )
    need(
        c.masks.start != "flat" or c.masks.snapshots == 1 or not c.masks.trained,
        f"masks.start: {c.masks.snapshots} masks that start alike stay alike, got flat; take "
        "random ones, or masks.file",
    )
    zernike = c.aberrations.zernike
    need(
        not zernike or any(zernike[1:]),
        f"aberrations.zernike: expected more than the first, piston, which nothing shows, got "
        f"{zernike}; defocus is the fourth: (0.0,0.0,0.0,0.8)",
    )
    need(
        bool(zernike) or c.aberrations.diameter == AberrationOptions().diameter,
        f"aberrations.diameter: is read only with aberrations.zernike, got "
        f"{c.aberrations.diameter:g} without; leave it out",
    )
    need(
        c.illumination.kind not in OF_A_FILE[1] or bool(c.illumination.file),
        f"illumination.file: goes with illumination.kind={c.illumination.kind}, got none; give its "
        "path",
    )
    if c.data.unit == "radians":
        need(
            c.scene.kind == "phase",
            f"data.unit: radians are of scene.kind phase, got {c.scene.kind}; set it to fraction",
        )
        need(not c.data.rescale, "data.rescale: leaves no radians; leave out data.unit=radians")
    need(
        not c.device.table or (c.device.levels == 0 and c.device.phase_range == TURN),
        "device.table: stands in place of device.levels (0 with it) and device.phase_range (2 pi "
        f"with it), got {c.device.levels} levels and {c.device.phase_range:g} radians beside it; "
        "set device.levels=0, or the range to its default",
    )
    need(
        c.data.size % c.device.superpixel == 0,
        f"device.superpixel: expected a divisor of data.size = {c.data.size}, got "
        f"{c.device.superpixel}",
    )
    for name in LENGTHS:
        path, given = f"propagation.{name}", getattr(c.propagation, name)
        if name in c.propagation.read_lengths:
            where = f" (with propagation.gap={c.propagation.gap:g})" if c.propagation.gap else ""
            require(f"{path}{where}", given, POSITIVE_LENGTHS[name], unit="metres")
        else:
            need(
                given == 0,
                f"{path}: is read only of a near field (propagation.kind), or with propagation.gap "
                f"for the way to the mask, got {given:g} in the far field; leave it out",
            )
    _check_sensor(c)
    need(
        c.spectral.filter_size % 2 == 1 and c.spectral.filter_size <= c.data.size,
        f"spectral.filter_size: expected an odd number up to data.size = {c.data.size}, "
        f"got {c.spectral.filter_size}",
    )
    require_fit = getattr(NETWORKS[c.net.kind], "require", None)
    if has_network and require_fit is not None:
        require_fit(c.net, c.data.size)
    need(
        c.train.devices == 0
        or (c.train.batch_size % c.train.devices == c.train.eval_batch_size % c.train.devices == 0),
        f"train.devices: expected a divisor of train.batch_size = {c.train.batch_size} and "
        f"train.eval_batch_size = {c.train.eval_batch_size}, got {c.train.devices}; leave it 0",
    )
    if c.regime == "student":
        _check_student(c)
    else:
        require("loss.alpha", c.loss.alpha, Range(0, math.inf, "()"))
        need(
            c.loss.beta == 0 and not c.distill.teacher,
            f"loss.beta, distill.teacher: only regime student has a teacher, got {c.loss.beta:g} "
            f"and {c.distill.teacher!r} with regime {c.regime}; unset them or set regime=student",
        )


def _check_sensor(c: Config) -> None:
    if c.sensor == SensorOptions():
        return
    need(
        not c.propagation.propagator.keeps_pitch,
        f"sensor.step, rows, columns: are of the far field, got propagation.kind="
        f"{c.propagation.kind}, whose samples have the mask's pitch; leave them out",
    )
    need(
        c.masks.oversample == 1,
        f"masks.oversample: is read only without sensor.step, got {c.masks.oversample}; set "
        f"sensor.step={1 / c.masks.oversample:g} alone",
    )
    most = samples_of_pattern(c.data.size, c.sensor.step or 1.0)
    for name in ("rows", "columns"):
        samples = getattr(c.sensor, name)
        need(
            samples <= most,
            f"sensor.{name}: expected at most the {most} samples of the pattern (data.size / "
            f"sensor.step), got {samples}; lower it, or leave it 0",
        )


def _check_student(c: Config) -> None:
    need(
        c.masks.start == "random" or c.distill.start in ("none", "network"),
        f"masks.start: distill.start={c.distill.start} takes the teacher's masks, got "
        f"masks.start={c.masks.start} beside it; leave one out",
    )
    sigma = 1 - c.loss.alpha - c.loss.beta
    for name in ("alpha", "beta"):
        require(f"loss.{name}", getattr(c.loss, name), SHARE)
    need(
        sigma > -1e-9,
        "loss: expected sigma = 1 - alpha - beta in [0, 1], got "
        f"{sigma:.6g} (alpha = {c.loss.alpha:g}, beta = {c.loss.beta:g}); lower one of them",
    )
    if c.loss.alpha == 1:  # and so beta = sigma = 0
        need(
            c.distill.targets == "auto",
            "distill.targets: is read only where the guiding losses have a weight, got "
            "loss.alpha = 1; lower it, or leave that out",
        )
        need(
            c.distill.start != "none",
            "loss.alpha: a student of loss.alpha = 1 and distill.start none takes nothing from "
            "its teacher; lower loss.alpha, set distill.start, or train it as regime e2e",
        )
    need(
        bool(c.distill.teacher),
        "distill.teacher: a student needs the run folder of a trained teacher, got none; "
        "train one with regime teacher, then set --config.distill.teacher=RUN_DIR",
    )


def training_bytes(c: Config) -> int:
    """Returns a lower bound of the bytes that a training takes: masks, network, and one batch.

    Masks and network count four times (value, gradient, two moments of Adam). Of a batch, only the
    shots and the first feature maps count, on one of the devices.
    """
    widths = c.net.widths
    masks = c.masks.snapshots * c.data.size**2
    network = sum(9 * one * other for one, other in itertools.pairwise(widths))
    side = c.data.size * schema.samples_a_cycle(c)
    shots = int(c.masks.snapshots * (c.sensor.rows or side) * (c.sensor.columns or side))
    if c.device.crosstalk:  # masks are drawn at Gauss-Legendre points
        shots += 2 * masks * (3 * POINTS) ** 2
    maps = widths[0] * c.data.size**2
    batch = -(-c.train.batch_size // max(1, c.train.devices))
    return 4 * (4 * (masks + network) + batch * (shots + maps))
