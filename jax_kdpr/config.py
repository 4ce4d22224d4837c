"""The whole experiment as typed dataclasses: every option, its default, and what must hold.

A file in `configs/` has a function `get_config()` that returns a `Config`; the command line
overrides single fields (`--config.optim.mask_lr=0.02`). Classes have slots, so a misspelt field
raises instead of being carried along unread. Defaults are the paper's where it states them.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from jax_kdpr import config_fields
from jax_kdpr.choices import (
    Gauge,
    Gradient,
    Inputs,
    NoiseKind,
    Norm,
    Regime,
    Regulariser,
    SceneKind,
    Schedule,
    Source,
    Weights,
)
from jax_kdpr.config_fields import flatten, shallow
from jax_kdpr.errors import InputError


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """Images: `data.sources.load`."""

    source: Source = Source.SCENES
    dir: str = ""  # folder or array file; empty takes KDPR_DATA_DIR
    tfds_manual_dir: str = ""  # for TensorFlow Datasets, when no files are given
    size: int = 32  # pixels, height and width of scene and masks
    seed: int = 0  # of the split, or of the procedural scenes
    train_images: int = 0  # at most; 0: all of the split
    validation_images: int = 0
    test_images: int = 0
    validation_fraction: float = 0.1  # source images only
    test_fraction: float = 0.1
    rescale: bool = False


@dataclass(kw_only=True, slots=True)
class SceneConfig:
    """Encoding of an image as a field."""

    kind: SceneKind = SceneKind.PHASE
    phase_range: float = math.pi  # radians; phase of a white pixel
    min_amplitude: float = 0.5  # of a black pixel, complex scenes only


@dataclass(kw_only=True, slots=True)
class MaskConfig:
    """Masks, and the operator they are part of."""

    snapshots: int = 1  # L
    oversample: int = 1  # zero padding: 1 or 2
    regulariser: Regulariser = Regulariser.RANGE
    levels: int = 256  # of regulariser levels


@dataclass(kw_only=True, slots=True)
class NoiseConfig:
    """Sensor noise, in training and evaluation alike."""

    kind: NoiseKind = NoiseKind.NONE
    snr_db: float = 30.0  # gaussian: dB, per snapshot
    photons: float = 1e6  # poisson: expected per snapshot


@dataclass(kw_only=True, slots=True)
class SpectralConfig:
    """Filtered spectral initialisation (algorithm 1)."""

    iterations: int = 25  # T
    weights: Weights = Weights.SOFT
    fraction: float = 1 / 6  # weights topk
    threshold: float = 0.6  # weights threshold: p
    filter_size: int = 5  # taps each way
    filter_sigma: float = 1.0  # pixels, of its Gaussian start
    gradient: Gradient = Gradient.SEGMENTS
    gauge: Gauge = Gauge.START


@dataclass(kw_only=True, slots=True)
class NetConfig:
    """U-Net."""

    widths: tuple[int, ...] = (32, 64, 128, 256)
    norm: Norm = Norm.BATCH
    inputs: Inputs = Inputs.RE_IM


@dataclass(kw_only=True, slots=True)
class LossConfig:
    """Weights of eq. 4 and 7; sigma = 1 - alpha - beta weighs the feature loss of a student."""

    alpha: float = 1.0  # task
    beta: float = 0.0  # CDP loss, student only
    rho: float = 1e-3  # mask regulariser


@dataclass(kw_only=True, slots=True)
class DistillConfig:
    """The student's teacher."""

    teacher: str = ""  # run folder of the trained teacher


@dataclass(kw_only=True, slots=True)
class OptimConfig:
    """Adam, with its own learning rate for each part."""

    mask_lr: float = 5e-4  # radians a step, at most about
    filter_lr: float = 5e-4
    net_lr: float = 5e-4
    schedule: Schedule = Schedule.CONSTANT


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """Length of the training."""

    epochs: int = 120
    batch_size: int = 64
    eval_batch_size: int = 128  # validation and test
    devices: int = 1  # local devices to spread each batch over
    tensorboard: bool = False  # event files beside metrics.jsonl; wants the extra `tensorboard`


@dataclass(kw_only=True, slots=True)
class Config:
    """One run."""

    regime: Regime = Regime.E2E
    seed: int = 0  # of masks, filter start, network and noise
    data: DataConfig = field(default_factory=DataConfig)
    scene: SceneConfig = field(default_factory=SceneConfig)
    masks: MaskConfig = field(default_factory=MaskConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    spectral: SpectralConfig = field(default_factory=SpectralConfig)
    net: NetConfig = field(default_factory=NetConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


# Where files lie is no part of an experiment: a run may go on after its data have moved (their
# content is checked by digest), or after its teacher has.
LOCATIONS = ("data.dir", "data.tfds_manual_dir", "distill.teacher")


# Options that are read only together with a choice elsewhere. Setting one without it is refused, or
# its owner would believe in noise, images or levels that are not there.
READ_ONLY_WITH = {
    "data.dir": ("data.source", (Source.FASHION_MNIST, Source.IMAGES)),
    "data.tfds_manual_dir": ("data.source", (Source.FASHION_MNIST,)),
    "data.rescale": ("data.source", (Source.IMAGES,)),
    "scene.min_amplitude": ("scene.kind", (SceneKind.COMPLEX,)),
    "masks.levels": ("masks.regulariser", (Regulariser.LEVELS,)),
    "noise.snr_db": ("noise.kind", (NoiseKind.GAUSSIAN,)),
    "noise.photons": ("noise.kind", (NoiseKind.POISSON,)),
    "spectral.fraction": ("spectral.weights", (Weights.TOPK,)),
    "spectral.threshold": ("spectral.weights", (Weights.THRESHOLD,)),
}


def system_arguments(config: Config) -> dict[str, Any]:
    """Returns the keyword arguments of `systems.make_system`, the mesh excepted."""
    return {
        "size": config.data.size,
        "snapshots": config.masks.snapshots,
        "oversample": config.masks.oversample,
        "scene": config.scene.kind,
        "phase_range": config.scene.phase_range,
        "min_amplitude": config.scene.min_amplitude,
        "noise": config.noise.kind,
        "snr_db": config.noise.snr_db,
        "photons": config.noise.photons,
        "inputs": config.net.inputs,
        "widths": config.net.widths,
        "norm": config.net.norm,
        **shallow(config.spectral),
    }


def scene_arguments(config: Config) -> dict[str, Any]:
    """Returns the keyword arguments of `physics.scenes.scene_field` and `field_image`."""
    return shallow(config.scene)


def data_arguments(config: Config) -> dict[str, Any]:
    """Returns the keyword arguments of `data.sources.load`."""
    return shallow(config.data)


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
    for path in ("train.eval_batch_size", "train.devices"):
        need_in(path, 1)
    for path in ("scene.phase_range", "spectral.filter_sigma", "optim.net_lr"):
        need_positive(path)
    for path in ("optim.mask_lr", "optim.filter_lr", "loss.rho"):
        need_in(path, 0)
    for path in ("data.validation_fraction", "data.test_fraction", "scene.min_amplitude"):
        need_in(path, 0, 1)
    need_in("masks.oversample", 1, 2)
    need_in("noise.photons", 1, 2e9)  # counts are drawn as 32-bit integers
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
        c.train.batch_size % c.train.devices == 0
        and c.train.eval_batch_size % c.train.devices == 0,
        f"train.devices: expected a divisor of train.batch_size = {c.train.batch_size} and "
        f"train.eval_batch_size = {c.train.eval_batch_size}, got {c.train.devices}",
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


def to_dict(config: Config) -> dict[str, Any]:
    """Returns the config as nested plain values that JSON can hold."""
    return dataclasses.asdict(config)


def from_dict(values: Any) -> Config:
    """Rebuilds a config from `to_dict`'s values; fields that are missing take their default.

    Raises:
        InputError: If a field is unknown or its value is of the wrong type.
    """
    return config_fields.build(Config, values, known=field_paths())


def check_types(config: Config) -> Config:
    """Returns the config with every field of its declared type; raises as `from_dict`.

    Config files are Python: what they assign has been checked by nobody yet.
    """
    return from_dict(shallow(config))


def differences(ours: Config, theirs: Config) -> list[str]:
    """Returns "path: ours against theirs" for each field that differs, `LOCATIONS` left out."""
    return config_fields.differences(ours, theirs, ignore=LOCATIONS)


def field_paths() -> list[str]:
    """Returns the dotted paths of all options."""
    return list(flatten(Config()))


def unknown_field(path: str) -> str:
    """Returns the line that says an option does not exist, with the nearest that does."""
    return config_fields.unknown_field(path, field_paths())


def expected(path: str) -> str:
    """Returns in words what an option takes."""
    return config_fields.expected(path, Config())


def section_name(class_name: str) -> str:
    """Returns the section that a class of options stands for: "optim" for OptimConfig."""
    return next(
        (
            f.name
            for f in dataclasses.fields(Config)
            if getattr(f.type, "__name__", "") == class_name
        ),
        "",
    )
