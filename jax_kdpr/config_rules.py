"""What must hold between the options of a config: ranges, and fields that must fit each other."""

import math
from collections.abc import Callable

from jax_kdpr.choices import (
    NoiseKind,
    Norm,
    PropagationKind,
    Regime,
    Regulariser,
    SceneKind,
    Source,
    StudentStart,
    Weights,
)
from jax_kdpr.config import MEMBER_WEIGHTS, Config, members
from jax_kdpr.config_fields import flatten
from jax_kdpr.errors import InputError, require_metres

NEAR_FIELD = (PropagationKind.FRESNEL, PropagationKind.ANGULAR_SPECTRUM)
LENGTHS = ("wavelength", "pitch", "distance")
# Options that are read only together with a choice elsewhere. Setting one without it is refused, or
# its owner would believe in noise, images or levels that are not there.
READ_ONLY_WITH = {
    "data.dir": ("data.source", (Source.FASHION_MNIST, Source.IMAGES)),
    "data.tfds_manual_dir": ("data.source", (Source.FASHION_MNIST,)),
    **{
        f"data.{name}": ("data.source", (Source.IMAGES,))
        for name in ("rescale", "validation_fraction", "test_fraction")
    },
    "scene.min_amplitude": ("scene.kind", (SceneKind.COMPLEX,)),
    "masks.levels": ("masks.regulariser", (Regulariser.LEVELS,)),
    "noise.snr_db": ("noise.kind", (NoiseKind.GAUSSIAN,)),
    "noise.photons": ("noise.kind", (NoiseKind.POISSON, NoiseKind.CAMERA)),
    **{
        f"noise.{name}": ("noise.kind", (NoiseKind.CAMERA,))
        for name in ("read_noise", "dark", "full_well", "bits")
    },
    **{f"propagation.{name}": ("propagation.kind", NEAR_FIELD) for name in LENGTHS},
    "distill.targets": ("regime", (Regime.STUDENT,)),
    "distill.target_type": ("regime", (Regime.STUDENT,)),
    "distill.start": ("regime", (Regime.STUDENT,)),
    "loss.cdp": ("regime", (Regime.STUDENT,)),
    "loss.feature": ("regime", (Regime.STUDENT,)),
    "loss.balance": ("regime", (Regime.STUDENT,)),
    "loss.anneal": ("regime", (Regime.STUDENT,)),
    "spectral.fraction": ("spectral.weights", (Weights.TOPK,)),
    "spectral.threshold": ("spectral.weights", (Weights.THRESHOLD,)),
}
# Likewise, of a student whose teacher's losses weigh nothing.
READ_BY_GUIDANCE = (
    *("loss.cdp", "loss.feature", "loss.balance", "loss.anneal"),
    *("distill.targets", "distill.target_type"),
)


def validate(config: Config) -> None:
    """Checks what single types cannot: ranges, and fields that must fit each other.

    Raises:
        InputError: One line: field, expected, got, what to do.
    """
    c = config

    def need(holds, message):
        if not holds:
            raise InputError(message)

    def need_in(path, low, high=math.inf):
        value = flatten(c)[path]
        bounds = f"at least {low:g}" if high == math.inf else f"in [{low:g}, {high:g}]"
        need(low <= value <= high, f"{path}: expected {bounds}, got {value:g}")

    def need_positive(path):
        value = flatten(c)[path]
        need(0 < value < math.inf, f"{path}: expected a number above 0, got {value:g}")

    _validate_ensemble(c, need)
    if c.ensemble > 1:
        return  # each member was validated: what only its weights replace is never used
    for path, value in flatten(c).items():
        need(
            not isinstance(value, float) or math.isfinite(value),
            f"{path}: expected a finite number, got {value}",
        )
    for path in ("data.train_images", "data.validation_images", "data.test_images"):
        need_in(path, 0)
    for path in ("seed", "data.seed"):
        value = flatten(c)[path]
        need(0 <= value < 2**32, f"{path}: expected an integer in [0, 2^32), got {value}")
    for path in ("masks.snapshots", "spectral.iterations", "train.epochs", "train.batch_size"):
        need_in(path, 1)
    for path in ("train.eval_batch_size", "train.devices", "train.scan_steps"):
        need_in(path, 0)
    for path in ("scene.phase_range", "spectral.filter_sigma", "optim.net_lr"):
        need_positive(path)
    for path in ("optim.mask_lr", "optim.filter_lr", "loss.rho"):
        need_in(path, 0)
    for path in ("spectral.consistency_steps", "net.refine_steps"):
        need_in(path, 0)
    for path in ("data.validation_fraction", "data.test_fraction", "scene.min_amplitude"):
        need_in(path, 0, 1)
    need(
        0 <= c.optim.average < 1,
        f"optim.average: expected a decay in [0, 1), such as 0.99, got {c.optim.average:g}",
    )
    need_in("masks.oversample", 1, 2)
    _validate_device(c, need)
    for name in ("shift", "rotation", "scale", "defocus", "wavelength", "gain"):
        need_in(f"jitter.{name}", 0)
    if c.propagation.kind in NEAR_FIELD:
        for name in LENGTHS:
            need_positive(f"propagation.{name}")
        require_metres("propagation.wavelength", c.propagation.wavelength, most=1e-3)
        require_metres("propagation.pitch", c.propagation.pitch, most=1e-1)
    need_in("noise.photons", 1, 2e9)  # counts are drawn as 32-bit integers
    need_in("noise.read_noise", 0)
    need_in("noise.dark", 0)
    need_positive("noise.full_well")
    need_in("noise.bits", 1, 16)
    need_in("masks.levels", 2)
    need_in("spectral.threshold", 0, 1)
    need_in("data.size", 11)  # the SSIM window
    need(
        0 < c.spectral.fraction <= 1,
        f"spectral.fraction: expected in (0, 1], got {c.spectral.fraction:g}",
    )
    need(
        c.spectral.filter_size % 2 == 1 and 1 <= c.spectral.filter_size <= c.data.size,
        f"spectral.filter_size: expected an odd number up to data.size = {c.data.size}, "
        f"got {c.spectral.filter_size}",
    )
    need(
        len(c.net.widths) >= 2 and min(c.net.widths) >= 1,
        f"net.widths: expected two or more positive widths, got {c.net.widths}",
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
        need_in("loss.alpha", 0, 1)
        need_in("loss.beta", 0, 1)
        need(
            sigma > -1e-9,
            "loss: expected sigma = 1 - alpha - beta in [0, 1], got "
            f"{sigma:.6g} (alpha = {c.loss.alpha:g}, beta = {c.loss.beta:g}); lower one of them",
        )
        if c.loss.alpha == 1:  # and so beta = sigma = 0
            unread = [path for path in READ_BY_GUIDANCE if flat[path] != default[path]]
            need(
                not unread,
                f"{', '.join(unread)}: is read only where the guiding losses have a weight, got "
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
        need_positive("loss.alpha")
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
        0 < device.phase_range <= turn,
        "device.phase_range: expected in (0, 2 pi], the phase that the device can show, got "
        f"{device.phase_range:g} radians",
    )
    need(
        len(device.table) != 1 and all(map(math.isfinite, device.table)),
        "device.table: expected the finite phase of each of two or more gray levels, got "
        f"{device.table}",
    )
    need(
        not device.table or (device.levels == 0 and device.phase_range == turn),
        "device.table: stands in place of device.levels (0 with it) and device.phase_range (2 pi "
        f"with it), got {device.levels} levels and {device.phase_range:g} radians beside it; set "
        "device.levels=0, or the range to its default",
    )
    need(
        device.superpixel >= 1 and c.data.size % device.superpixel == 0,
        f"device.superpixel: expected a divisor of data.size = {c.data.size}, got "
        f"{device.superpixel}",
    )
    need(device.crosstalk >= 0, f"device.crosstalk: expected at least 0, got {device.crosstalk:g}")
    need(
        0 < device.fill_factor <= 1,
        f"device.fill_factor: expected in (0, 1], got {device.fill_factor:g}",
    )
    need(
        0 <= device.zero_order < 1,
        f"device.zero_order: expected in [0, 1), got {device.zero_order:g}",
    )


def _validate_ensemble(c: Config, need: Callable[[bool, str], None]) -> None:
    need(c.ensemble >= 1, f"ensemble: expected at least 1, got {c.ensemble}")
    for path in MEMBER_WEIGHTS:
        values = flatten(c)[path]
        need(
            not values or len(values) == c.ensemble > 1,
            f"{path}: expected one value for each member of an ensemble, got {len(values)} with "
            f"ensemble = {c.ensemble}; set ensemble to their number",
        )
    need(
        c.ensemble == 1 or c.train.devices in (0, 1),
        f"train.devices: an ensemble runs on one device, got {c.train.devices}; leave it 0",
    )
    if c.ensemble > 1:
        names = [name for name, _ in members(c)]
        need(len(set(names)) == c.ensemble, f"loss: two members are the same run, {names[0]!r}")
        for _, member in members(c):
            validate(member)
