"""The whole experiment as typed dataclasses: every option, its default, and what must hold.

A file in `configs/` has a function `get_config()` that returns a `Config`; the command line
overrides single fields (`--config.optim.mask_lr=0.02`). Classes have slots, so a misspelt field
raises instead of being carried along unread. Defaults are the paper's where it states them.
"""

import dataclasses
import math
import os
from dataclasses import dataclass, field
from typing import Any

from jax_kdpr.config import removed as removed_options
from jax_kdpr.core import options as config_fields
from jax_kdpr.core.choices import (
    Fit,
    Gauge,
    NoiseKind,
    Norm,
    Precision,
    PropagationKind,
    Regime,
    Regulariser,
    SceneKind,
    Schedule,
    Source,
    StudentStart,
    TargetMode,
    Unit,
    Weights,
)
from jax_kdpr.core.limits import LENGTHS, MOST_COUNT, Range
from jax_kdpr.core.options import flatten, option, shallow
from jax_kdpr.optics import propagation

SEEDS = Range(0, 2**32 - 1)
SHARE = Range(0, 1)
WEIGHT = Range(0, 1e6)
RATE = Range(0, 1e30)


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """Images: `data.sources.load`."""

    source: Source = option(Source.SCENES, "where images come from")
    dir: str = option("", "folder or array file; empty takes KDPR_DATA_DIR")
    tfds_manual_dir: str = option("", "for TensorFlow Datasets, when no files are given")
    size: int = option(
        32, "height and width of scene and masks", unit="pixels", within=Range(11, 8192)
    )  # the SSIM window
    seed: int = option(0, "of the split, or of the procedural scenes", within=SEEDS)
    train_images: int = option(
        0, "training images, at most; 0: all of the split", within=Range(0, 10_000_000)
    )
    validation_images: int = option(0, "likewise, of validation", within=Range(0, 10_000_000))
    test_images: int = option(0, "likewise, of the test", within=Range(0, 10_000_000))
    validation_fraction: float = option(
        0.1, "share of all images, source images only", within=SHARE
    )
    test_fraction: float = option(0.1, "likewise", within=SHARE)
    rescale: bool = option(
        False, "stretch each image to [0, 1] by itself; else 1 is scene.phase_range"
    )
    fit: Fit = option(Fit.STRETCH, "how image files that are not square become so")
    unit: Unit = option(
        Unit.FRACTION, "of values of image files: 1 is scene.phase_range, or phases"
    )
    subfolders: bool = option(False, "take the images in folders of data.dir as well")


@dataclass(kw_only=True, slots=True)
class SceneConfig:
    """Encoding of an image as a field."""

    kind: SceneKind = option(SceneKind.PHASE, "what an image is of its field")
    phase_range: float = option(
        math.pi, "phase of a white pixel", unit="radians", within=Range(0, 1000, "(]")
    )
    min_amplitude: float = option(
        0.5, "amplitude of a black pixel, complex scenes only", within=SHARE
    )


@dataclass(kw_only=True, slots=True)
class MaskConfig:
    """Masks, and the operator they are part of."""

    snapshots: int = option(
        1, "shots of each object, each through a mask of its own: L", within=Range(1, 4096)
    )
    oversample: int = option(1, "zero padding of the operator", within=Range(1, 2))
    regulariser: Regulariser = option(Regulariser.RANGE, "what loss.rho weighs, of the masks")


@dataclass(kw_only=True, slots=True)
class DeviceConfig:
    """What the device makes of the phases: `optics.device`, in training and export alike."""

    levels: int = option(0, "equal phase steps; 0: any phase", within=Range(0, 65536))
    phase_range: float = option(
        math.tau, "largest phase that it can add", unit="radians", within=Range(0, math.tau, "(]")
    )
    table: tuple[float, ...] = option(
        (),
        "phi of each gray level, in place of both: `lookup_table.device_table`",
        unit="radians",
        within=Range(-2 * math.tau, 2 * math.tau),
    )
    superpixel: int = option(
        1,
        "mask pixels each way that show one phase: the smallest feature",
        unit="pixels",
        within=Range(1, 8192),
    )
    crosstalk: float = option(
        0.0, "sigma of the blur between neighbours", unit="pixels", within=Range(0, 100)
    )
    fill_factor: float = option(
        1.0, "share of a pixel's area that is modulated", within=Range(0, 1, "(]")
    )
    zero_order: float = option(
        0.0, "share of the power that is not modulated", within=Range(0, 1, "[)")
    )


@dataclass(kw_only=True, slots=True)
class PropagationConfig:
    """What lies between mask and sensor: `optics.propagation`."""

    kind: PropagationKind = option(
        PropagationKind.FAR, "to the sensor: far through a lens, the others through free space"
    )
    wavelength: float = option(
        0.0,
        "of the light; fresnel and angular_spectrum only",
        unit="metres",
        within=LENGTHS["wavelength"],
    )
    pitch: float = option(
        0.0, "of mask and object pixels; as wavelength", unit="metres", within=LENGTHS["pitch"]
    )
    distance: float = option(
        0.0, "from mask to sensor; as wavelength", unit="metres", within=LENGTHS["distance"]
    )


@dataclass(kw_only=True, slots=True)
class JitterConfig:
    """Errors of the bench, drawn anew for each scene: `optics.misalignment`.

    Standard deviations. What is recovered from does not know of them: this makes robust masks.
    """

    shift: float = option(0.0, "of the mask, each axis", unit="mask pixels", within=Range(0, 1000))
    rotation: float = option(0.0, "of the mask", unit="degrees", within=Range(0, 180))
    scale: float = option(0.0, "of the mask's image, relative", within=SHARE)
    defocus: float = option(0.0, "at half the object's side", unit="waves", within=Range(0, 1000))
    wavelength: float = option(0.0, "of the light, relative", within=SHARE)
    gain: float = option(0.0, "of the device's phases, relative", within=SHARE)


@dataclass(kw_only=True, slots=True)
class NoiseConfig:
    """Sensor noise, in training and evaluation alike."""

    kind: NoiseKind = option(NoiseKind.NONE, "model of the sensor")
    snr_db: float = option(30.0, "gaussian: of each snapshot", unit="dB", within=Range(-100, 300))
    photons: float = option(
        1e6, "poisson, camera: expected in a snapshot", unit="photoelectrons", within=Range(1, 2e9)
    )  # drawn as 32-bit integers
    read_noise: float = option(
        2.0, "camera: standard deviation", unit="electrons", within=Range(0, 1e9)
    )
    dark: float = option(
        0.0, "camera: of a pixel and frame", unit="electrons", within=Range(0, 1e9)
    )
    full_well: float = option(
        1e4, "camera: that a pixel holds", unit="electrons", within=Range(0, 1e9, "(]")
    )
    bits: int = option(12, "camera: of its converter", unit="bits", within=Range(1, 16))


@dataclass(kw_only=True, slots=True)
class SpectralConfig:
    """Filtered spectral initialisation (algorithm 1)."""

    iterations: int = option(25, "of the power method: T", within=Range(1, 10_000))
    weights: Weights = option(Weights.SOFT, "how Gamma weighs the measured pixels")
    fraction: float = option(
        1 / 6, "share of the sensor pixels that weights topk takes", within=Range(0, 1, "(]")
    )
    threshold: float = option(0.6, "p of weights threshold", within=SHARE)
    filter_size: int = option(5, "taps each way of the low-pass filter", within=Range(1, 8192))
    filter_sigma: float = option(
        1.0, "of the Gaussian that it starts as", unit="pixels", within=Range(0, 1000, "(]")
    )
    gauge: Gauge = option(Gauge.START, "what sets the estimate's global phase")
    consistency_steps: int = option(
        0, "of error reduction, between the estimate and the network", within=Range(0, 10_000)
    )


@dataclass(kw_only=True, slots=True)
class NetConfig:
    """U-Net."""

    widths: tuple[int, ...] = option(
        (32, 64, 128, 256), "channels of each level", within=Range(1, 8192)
    )
    norm: Norm = option(Norm.BATCH, "norm layers")
    precision: Precision = option(Precision.TF32, "of its convolutions")
    refine_steps: int = option(
        0,
        "of error reduction from its image, as far as its gate lets them",
        within=Range(0, 10_000),
    )


@dataclass(kw_only=True, slots=True)
class LossConfig:
    """Weights of eq. 4 and 7; sigma = 1 - alpha - beta weighs the feature loss of a student."""

    alpha: float = option(1.0, "weight of the task loss", within=WEIGHT)
    beta: float = option(0.0, "weight of the CDP loss, student only", within=SHARE)
    rho: float = option(1e-3, "weight of the mask regulariser", within=WEIGHT)


@dataclass(kw_only=True, slots=True)
class DistillConfig:
    """The student's teacher."""

    teacher: str = option("", "run folder of the trained teacher")
    targets: TargetMode = option(
        TargetMode.AUTO, "when the teacher runs; auto caches where nothing changes and it fits"
    )
    start: StudentStart = option(StudentStart.NONE, "what of the teacher a student starts with")


@dataclass(kw_only=True, slots=True)
class OptimConfig:
    """Adam, with its own learning rate for each part."""

    mask_lr: float = option(5e-4, "at most about so much a step", unit="radians", within=RATE)
    filter_lr: float = option(5e-4, "learning rate of the filter", within=RATE)
    net_lr: float = option(5e-4, "learning rate of the network", within=Range(0, 1e30, "(]"))
    schedule: Schedule = option(Schedule.CONSTANT, "course of all rates over the training")
    average: float = option(
        0.0,
        "decay of a running mean of the weights, which is then the result; 0: none",
        within=Range(0, 1, "[)"),
    )


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """Length of the training."""

    epochs: int = option(120, "times through the training images", within=Range(1, MOST_COUNT))
    batch_size: int = option(64, "images in a step", within=Range(1, 65536))
    eval_batch_size: int = option(
        0, "validation and test; 0: 128 on a CPU, what fits on a GPU", within=Range(0, 65536)
    )
    devices: int = option(
        0,
        "local devices to spread each batch over; 0: the CPU's cores, or one GPU",
        within=Range(0, 4096),
    )
    scan_steps: int = option(
        0,
        "steps in one call of the device; 0: 1 on a CPU, about 64 on a GPU",
        within=Range(0, MOST_COUNT),
    )
    tensorboard: bool = option(
        False, "event files beside metrics.jsonl; wants the extra `tensorboard`"
    )


@dataclass(kw_only=True, slots=True)
class Config:
    """One run."""

    regime: Regime = option(
        Regime.E2E, "all is trained, the network alone (random), or guided by a teacher (student)"
    )
    seed: int = option(0, "of masks, filter start, network and noise", within=SEEDS)
    data: DataConfig = field(default_factory=DataConfig)
    scene: SceneConfig = field(default_factory=SceneConfig)
    masks: MaskConfig = field(default_factory=MaskConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)
    propagation: PropagationConfig = field(default_factory=PropagationConfig)
    jitter: JitterConfig = field(default_factory=JitterConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    spectral: SpectralConfig = field(default_factory=SpectralConfig)
    net: NetConfig = field(default_factory=NetConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


# No part of an experiment: a run may go on after its data or its teacher have moved (their content
# is checked by digest), and on another machine, where these options change its results by rounding.
CIRCUMSTANCES = (
    *("data.dir", "data.tfds_manual_dir", "distill.teacher"),
    *("distill.targets", "train.devices", "train.scan_steps", "train.eval_batch_size"),
)


# Where files lie. Kept absolute in a run folder: it may be resumed from another folder.
PATHS = ("data.dir", "data.tfds_manual_dir", "distill.teacher")


def camera_arguments(config: Config) -> dict[str, Any]:
    """Returns the keyword arguments of `camera.make_camera`, the mesh excepted."""
    return {
        "size": config.data.size,
        "oversample": config.masks.oversample,
        "scene": shallow(config.scene),
        "device": shallow(config.device),
        "propagation": shallow(config.propagation),
        "jitter": shallow(config.jitter),
        "noise": shallow(config.noise),
    }


def recovery_arguments(config: Config) -> dict[str, Any]:
    """Returns the keyword arguments of `system.make_system`."""
    return {
        "snapshots": config.masks.snapshots,
        "widths": config.net.widths,
        "norm": config.net.norm,
        "precision": config.net.precision,
        "refine_steps": config.net.refine_steps,
        **shallow(config.spectral),
    }


def sampling_warnings(config: Config) -> list[str]:
    """Returns what is wrong with the sampling of the config's propagation, if anything."""
    return propagation.sampling_warnings(
        config.data.size, oversample=config.masks.oversample, **shallow(config.propagation)
    )


def data_arguments(config: Config) -> dict[str, Any]:
    """Returns the keyword arguments of `data.sources.load`."""
    is_phase = config.scene.kind == SceneKind.PHASE
    return {
        **shallow(config.data),
        "phase_range": config.scene.phase_range if is_phase else 0.0,
    }


def to_dict(config: Config) -> dict[str, Any]:
    """Returns the config as nested plain values that JSON can hold."""
    return dataclasses.asdict(config)


def from_dict(values: Any) -> Config:
    """Rebuilds a config from `to_dict`'s values; fields that are missing take their default.

    Options that have gone may stand there still, if they change nothing.

    Raises:
        InputError: If a field is unknown or its value is of the wrong type.
    """
    values = removed_options.without_removed(values)
    return config_fields.build(Config, values, known=field_paths())


def check_types(config: Config) -> Config:
    """Returns the config with every field of its declared type; raises as `from_dict`.

    Config files are Python: what they assign has been checked by nobody yet.
    """
    return from_dict(shallow(config))


def resolve_paths(config: Config) -> None:
    """Makes the paths of a config absolute, and a home folder of its ~; empty ones stay so."""
    for path in PATHS:
        section, name = path.split(".")
        given = getattr(getattr(config, section), name)
        if given and "://" not in given:  # TensorFlow Datasets takes addresses of buckets
            absolute = os.path.join(os.getcwd(), os.path.expanduser(given))
            setattr(getattr(config, section), name, absolute)


def differences(ours: Config, theirs: Config) -> list[str]:
    """Returns "path: ours against theirs" for each field that differs, `CIRCUMSTANCES` left out."""
    return config_fields.differences(ours, theirs, ignore=CIRCUMSTANCES)


def field_paths() -> list[str]:
    """Returns the dotted paths of all options."""
    return list(flatten(Config()))


def unknown_field(path: str) -> str:
    """Returns the line that says an option does not exist, with the nearest that does."""
    return removed_options.removed(path) or config_fields.unknown_field(path, field_paths())


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
