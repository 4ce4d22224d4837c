"""The whole experiment as typed dataclasses: every option, its default, and what must hold.

A file in `configs/` has a function `get_config()` that returns a `Config`; the command line
overrides single fields (`--config.optim.mask_lr=0.02`). Classes have slots, so a misspelt field
raises instead of being carried along unread. Defaults are the paper's where it states them.
"""

import copy
import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from jax_kdpr import config_fields
from jax_kdpr.choices import (
    Anneal,
    Balance,
    CdpView,
    FeatureView,
    Gauge,
    Gradient,
    Inputs,
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
    TargetType,
    Weights,
)
from jax_kdpr.config_fields import flatten, shallow
from jax_kdpr.physics import propagation


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
    rescale: bool = False  # stretch each image to [0, 1] by itself; else 1 is `phase_range`


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
class DeviceConfig:
    """What the device makes of the phases: `physics.device`, in training and export alike."""

    levels: int = 0  # equal phase steps; 0: any phase
    phase_range: float = math.tau  # radians, the largest phase that it can add
    table: tuple[float, ...] = ()  # phi of each gray level, in place of both: `lookup.device_table`
    superpixel: int = 1  # pixels each way that show one phase
    crosstalk: float = 0.0  # pixels, sigma of the blur between neighbours
    fill_factor: float = 1.0  # share of a pixel's area that is modulated
    zero_order: float = 0.0  # share of the power that is not modulated


@dataclass(kw_only=True, slots=True)
class PropagationConfig:
    """What lies between mask and sensor: `physics.propagation`."""

    kind: PropagationKind = PropagationKind.FAR
    wavelength: float = 0.0  # metres; these three for fresnel and angular_spectrum
    pitch: float = 0.0  # metres, of mask and object pixels
    distance: float = 0.0  # metres, from mask to sensor


@dataclass(kw_only=True, slots=True)
class JitterConfig:
    """Errors of the bench, drawn anew for each scene: `physics.perturbation`.

    Standard deviations. What is recovered from does not know of them: this makes robust masks.
    """

    shift: float = 0.0  # mask pixels, each axis
    rotation: float = 0.0  # degrees
    scale: float = 0.0  # relative
    defocus: float = 0.0  # waves at half the object's side
    wavelength: float = 0.0  # relative
    gain: float = 0.0  # relative, of the device's phases


@dataclass(kw_only=True, slots=True)
class NoiseConfig:
    """Sensor noise, in training and evaluation alike."""

    kind: NoiseKind = NoiseKind.NONE
    snr_db: float = 30.0  # gaussian: dB, per snapshot
    photons: float = 1e6  # poisson, camera: expected per snapshot
    read_noise: float = 2.0  # camera: electrons, standard deviation
    dark: float = 0.0  # camera: electrons a pixel and frame
    full_well: float = 1e4  # camera: electrons
    bits: int = 12  # camera: of its converter


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
    consistency_steps: int = 0  # of error reduction, between the estimate and the network


@dataclass(kw_only=True, slots=True)
class NetConfig:
    """U-Net."""

    widths: tuple[int, ...] = (32, 64, 128, 256)
    norm: Norm = Norm.BATCH
    inputs: Inputs = Inputs.RE_IM
    precision: Precision = Precision.TF32
    refine_steps: int = 0  # of error reduction from its image, as far as its gate lets them


@dataclass(kw_only=True, slots=True)
class LossConfig:
    """Weights of eq. 4 and 7; sigma = 1 - alpha - beta weighs the feature loss of a student."""

    alpha: float = 1.0  # task
    beta: float = 0.0  # CDP loss, student only
    rho: float = 1e-3  # mask regulariser
    alphas: tuple[float, ...] = ()  # one for each member of an ensemble, in place of alpha
    betas: tuple[float, ...] = ()
    rhos: tuple[float, ...] = ()
    cdp: CdpView = CdpView.PAPER
    feature: FeatureView = FeatureView.PAPER
    balance: Balance = Balance.NONE
    anneal: Anneal = Anneal.CONSTANT  # of beta and sigma


@dataclass(kw_only=True, slots=True)
class DistillConfig:
    """The student's teacher."""

    teacher: str = ""  # run folder of the trained teacher
    targets: TargetMode = TargetMode.AUTO
    target_type: TargetType = TargetType.FLOAT32  # of cached targets
    start: StudentStart = StudentStart.NONE


@dataclass(kw_only=True, slots=True)
class OptimConfig:
    """Adam, with its own learning rate for each part."""

    mask_lr: float = 5e-4  # radians a step, at most about
    filter_lr: float = 5e-4
    net_lr: float = 5e-4
    schedule: Schedule = Schedule.CONSTANT
    average: float = (
        0.0  # decay of a running mean of the weights, which is then the result; 0: none
    )


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """Length of the training."""

    epochs: int = 120
    batch_size: int = 64
    eval_batch_size: int = 0  # validation and test; 0: 128 on a CPU, what fits on a GPU
    devices: int = 0  # local devices to spread each batch over; 0: the CPU's cores, or one GPU
    scan_steps: int = 0  # steps in one call of the device; 0: 1 on a CPU, about 64 on a GPU
    tensorboard: bool = False  # event files beside metrics.jsonl; wants the extra `tensorboard`


@dataclass(kw_only=True, slots=True)
class Config:
    """One run."""

    regime: Regime = Regime.E2E
    seed: int = 0  # of masks, filter start, network and noise
    ensemble: int = 1  # runs of seed, seed + 1, ... (or of loss weights) in one program
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


# Lists of loss weights, one for each member of an ensemble, and the weight that each replaces.
MEMBER_WEIGHTS = {"loss.alphas": "alpha", "loss.betas": "beta", "loss.rhos": "rho"}


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
    """Returns the keyword arguments of `systems.make_system`."""
    return {
        "snapshots": config.masks.snapshots,
        "inputs": config.net.inputs,
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
    return shallow(config.data)


def members(config: Config) -> list[tuple[str, Config]]:
    """Returns the single runs that an ensemble is made of, each with a name for its folder.

    Where the loss weights have a value for each member, these are what differs, else the seeds.
    """
    if config.ensemble == 1:
        return [("", config)]
    runs = []
    for number in range(config.ensemble):
        member = copy.deepcopy(config)
        member.ensemble, member.train.devices = 1, 1
        given = []
        for path, single in MEMBER_WEIGHTS.items():
            values = getattr(member.loss, path.removeprefix("loss."))
            if values:
                setattr(member.loss, single, values[number])
                setattr(member.loss, path.removeprefix("loss."), ())
                given.append(f"{single}-{values[number]:g}")
        if not given:
            member.seed += number
        runs.append(("_".join(given) or f"seed-{member.seed}", member))
    return runs


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
    """Returns "path: ours against theirs" for each field that differs, `CIRCUMSTANCES` left out."""
    return config_fields.differences(ours, theirs, ignore=CIRCUMSTANCES)


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
