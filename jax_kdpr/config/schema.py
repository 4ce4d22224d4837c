"""The options of a whole experiment: those of every subpackage, and those of a training.

A file in `configs/` has a function `get_config()` that returns a `Config`; the command line
overrides single fields (`--config.optim.mask_lr=0.02`). Each section is defined beside the code
that reads it. Only those of a training are defined here, because `training` imports this module.
Defaults are the paper's where it states them.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any

from jax_kdpr.core import options
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import MOST_COUNT, SEEDS, SHARE, Range, need, shown
from jax_kdpr.core.options import flatten, option, section, shallow
from jax_kdpr.core.registry import Registry
from jax_kdpr.core.types import Images, Scalar
from jax_kdpr.data import sources
from jax_kdpr.data.sources import DataOptions, Dataset
from jax_kdpr.optics.beam import AberrationOptions, IlluminationOptions
from jax_kdpr.optics.device import DeviceOptions
from jax_kdpr.optics.masks import MaskOptions
from jax_kdpr.optics.misalignment import JitterOptions, MountOptions
from jax_kdpr.optics.noise import NoiseOptions
from jax_kdpr.optics.objects import SceneOptions
from jax_kdpr.optics.propagation import PropagationOptions
from jax_kdpr.optics.window import SensorOptions
from jax_kdpr.recovery.networks.network import NetOptions
from jax_kdpr.recovery.spectral import SpectralOptions

WEIGHT = Range(0, 1e6)
RATE = Range(0, 1e30)
OF_STUDENT = ("regime", ("student",))
TASK_LOSSES: Registry[Callable[[Images, Images], Scalar]] = Registry(
    "task loss", {"mse": "jax_kdpr.training.losses:task_loss"}
)


@section
class LossOptions:
    """Weights of eq. 4 and 7; sigma = 1 - alpha - beta weighs the feature loss of a student."""

    task: str = option("mse", "the task loss, of recovered and true images", choices=TASK_LOSSES)
    alpha: float = option(1.0, "weight of the task loss", within=WEIGHT)
    beta: float = option(0.0, "weight of the CDP loss, student only", within=SHARE)
    rho: float = option(1e-3, "weight of the mask regulariser", within=WEIGHT)


@section
class DistillOptions:
    """The teacher of a student."""

    teacher: str = option("", "run folder of the trained teacher")
    targets: str = option(
        "auto",
        "when the teacher runs; auto caches targets if constant and they fit",
        choices=("auto", "live", "cached"),
        when=OF_STUDENT,
    )
    draws: str = option(
        "own",
        "a teacher's random start and order: own, or shared with other regimes of its seed",
        choices=("own", "shared"),
        when=("regime", ("teacher",)),
    )
    start: str = option(
        "none",
        "what a student takes from its teacher; optics: the first masks and the filter",
        choices=("none", "optics", "network", "all"),
        when=OF_STUDENT,
    )


@section
class OptimOptions:
    """Adam, with its own learning rate for each part."""

    mask_lr: float = option(
        5e-4, "learning rate of the masks: about the largest step", unit="radians", within=RATE
    )
    filter_lr: float = option(5e-4, "learning rate of the filter", within=RATE)
    net_lr: float = option(5e-4, "learning rate of the network", within=Range(0, 1e30, "(]"))
    schedule: str = option(
        "constant",
        "schedule of all learning rates; cosine ends at zero",
        choices=("constant", "cosine"),
    )
    average: float = option(
        0.0,
        "decay of a running mean of weights to use as the result; 0: none",
        within=Range(0, 1, "[)"),
    )


@section
class TrainOptions:
    """Length, batches, devices and logs of a training."""

    epochs: int = option(120, "passes over the training images", within=Range(1, MOST_COUNT))
    batch_size: int = option(64, "images per step", within=Range(1, 65536))
    eval_batch_size: int = option(
        0, "images per evaluation; 0: 128 on a CPU, what fits on a GPU", within=Range(0, 65536)
    )
    devices: int = option(
        0,
        "local devices to spread each batch over; 0: the CPU's cores, or one GPU",
        within=Range(0, 4096),
    )
    validate_every: int = option(
        1,
        "epochs between validations; the last epoch is always validated",
        within=Range(1, MOST_COUNT),
    )
    scan_steps: int = option(
        0,
        "steps per call of the device; 0: 1 on a CPU, about 64 on a GPU",
        within=Range(0, MOST_COUNT),
    )
    log_gradients: bool = option(
        False, "log the gradient of each loss on each part in metrics.jsonl, per epoch"
    )
    tensorboard: bool = option(
        False, "event files beside metrics.jsonl; needs the extra `tensorboard`"
    )
    wandb: bool = option(
        False, "log to Weights & Biases, project jax_kdpr; needs the extra `wandb`"
    )


@section
class Config:
    """All options of one run."""

    regime: str = option(
        "e2e",
        "trained: all; network only (random); all, guided by a teacher (student)",
        choices=("teacher", "e2e", "random", "student"),
    )
    seed: int = option(0, "seed of masks, start vector, network and noise", within=SEEDS)
    optics: str = option(
        "", "calibration of a bench, by calibrate --fit: sets illumination, aberrations, mount, ..."
    )
    data: DataOptions = field(default_factory=DataOptions)
    scene: SceneOptions = field(default_factory=SceneOptions)
    masks: MaskOptions = field(default_factory=MaskOptions)
    device: DeviceOptions = field(default_factory=DeviceOptions)
    mount: MountOptions = field(default_factory=MountOptions)
    illumination: IlluminationOptions = field(default_factory=IlluminationOptions)
    aberrations: AberrationOptions = field(default_factory=AberrationOptions)
    propagation: PropagationOptions = field(default_factory=PropagationOptions)
    sensor: SensorOptions = field(default_factory=SensorOptions)
    jitter: JitterOptions = field(default_factory=JitterOptions)
    noise: NoiseOptions = field(default_factory=NoiseOptions)
    spectral: SpectralOptions = field(default_factory=SpectralOptions)
    net: NetOptions = field(default_factory=NetOptions)
    loss: LossOptions = field(default_factory=LossOptions)
    distill: DistillOptions = field(default_factory=DistillOptions)
    optim: OptimOptions = field(default_factory=OptimOptions)
    train: TrainOptions = field(default_factory=TrainOptions)


# Paths of files. A run folder keeps them absolute: it may be resumed from another folder.
PATHS = (
    *("data.dir", "data.tfds_manual_dir", "distill.teacher"),
    *("masks.file", "illumination.file", "aberrations.file", "optics"),
)
# Sections in which the optics of a bench may differ from the design.
OF_BENCH = ("illumination", "aberrations", "device", "mount", "propagation")
# Options that are no part of an experiment. A run may go on after its data or its teacher have
# moved (digests check their content), and on another machine, where these options change results
# by rounding only.
CIRCUMSTANCES = (
    *PATHS,
    *("data.memory", "data.skip_unreadable", "train.tensorboard", "train.wandb"),
    *("distill.targets", "train.devices", "train.scan_steps", "train.eval_batch_size"),
)

# Options of earlier versions, with the values for which an old run folder is still valid today:
# docs/science/what_did_not_help.md.
GONE: dict[str, tuple[Any, ...]] = {
    "ensemble": (1,),
    "masks.levels": (256,),
    "spectral.gradient": ("segments", "unrolled"),
    "net.inputs": ("re_im",),
    **dict.fromkeys(("loss.alphas", "loss.betas", "loss.rhos"), ([],)),
    **dict.fromkeys(("loss.cdp", "loss.feature"), ("paper",)),
    "loss.balance": ("none",),
    "loss.anneal": ("constant",),
    "distill.target_type": ("float32",),
}
GONE_CHOICES = {("spectral.weights", "optimal"), ("masks.regulariser", "levels")}
LAST_COMMIT = "43d84cf"  # that had these options
TAKEN_OUT = (
    f"has been taken out (docs/science/what_did_not_help.md): commit {LAST_COMMIT} of jax_kdpr "
    "still reads it"
)


def load_data(config: Config, **words: str) -> Dataset:
    """Loads the data set of a config; `words` and errors are those of `data.sources.load`."""
    scene = config.scene
    return sources.load(
        config.data, phase_range=scene.image_range, channels=scene.channels, **words
    )


def to_dict(config: Config) -> dict[str, Any]:
    """Returns the config as nested plain values that JSON can hold."""
    return dataclasses.asdict(config)


def from_dict(values: Any) -> Config:
    """Rebuilds a config from `to_dict`'s values; fields that are missing take their default.

    Options that were removed (`GONE`) may still be present, if their values change nothing.

    Raises:
        InputError: If a field is unknown or was removed, or its value is of the wrong type.
    """
    return options.build(Config, _without_gone(values), known=field_paths())


def _without_gone(values: Any, prefix: str = "") -> Any:
    if dataclasses.is_dataclass(values):
        values = shallow(values)
    if not isinstance(values, dict):
        return values
    kept = {}
    for name, value in values.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict) or dataclasses.is_dataclass(value):
            kept[name] = _without_gone(value, f"{path}.")
        elif value not in GONE.get(path, (value,)) or (path, str(value)) in GONE_CHOICES:
            raise InputError(f"{path}={shown(value)} {TAKEN_OUT}")
        elif path not in GONE:
            kept[name] = value
    return kept


def check_types(config: Config) -> Config:
    """Returns the config with every field of its declared type; raises like `from_dict`.

    Config files are Python code, so nothing has checked the values that they assign.
    """
    return from_dict(shallow(config))


def resolve_paths(config: Config) -> None:
    """Makes the paths of a config absolute, and expands ~; empty ones stay empty."""
    for path in PATHS:
        section, _, name = path.rpartition(".")
        owner = getattr(config, section) if section else config
        given = getattr(owner, name)
        if given and "://" not in given:  # TensorFlow Datasets takes URLs of buckets
            setattr(owner, name, os.path.join(os.getcwd(), os.path.expanduser(given)))


def samples_a_cycle(config: Config) -> int | float:
    """Returns the number of far-field samples per cycle of the object's side."""
    return 1 / config.sensor.step if config.sensor.step else config.masks.oversample


def with_optics(config: Config, optics: dict[str, dict[str, Any]]) -> Config:
    """Returns a config with new values of its optics, given by section, in their declared types.

    Raises:
        InputError: If an option does not exist, or its value is of another type.
    """
    for name, given in optics.items():
        need(
            name in OF_BENCH and isinstance(given, dict),
            f"optics.{name}: expected options of {', '.join(OF_BENCH)}, got {shown(given)}; leave "
            "it out",
        )
    changes = {
        f"{name}.{one}": value for name, given in optics.items() for one, value in given.items()
    }
    return with_values(config, changes)


def with_values(config: Config, changes: Mapping[str, Any]) -> Config:
    """Returns a config with new values of the options at dotted paths; raises like `from_dict`."""
    values = to_dict(config)
    for path, value in changes.items():
        section, _, name = path.rpartition(".")
        if section and section not in values:
            raise InputError(unknown_field(path))
        (values[section] if section else values)[name] = value
    return from_dict(values)


def differences(ours: Config, theirs: Config) -> list[str]:
    """Returns "path: ours against theirs" for each field that differs, `CIRCUMSTANCES` left out."""
    return options.differences(ours, theirs, ignore=CIRCUMSTANCES)


def field_paths() -> list[str]:
    """Returns the dotted paths of all options."""
    return list(flatten(Config()))


def unknown_field(path: str, *, prefix: str = "", others: tuple[str, ...] = ()) -> str:
    """Returns the message that an option was removed or does not exist, with the nearest one.

    Args:
        path: The path, as it was given.
        prefix: Prefix of the options of a config, such as "base.".
        others: Options that exist besides those of a config.
    """
    if path.removeprefix(prefix) in GONE:
        return f"config: {path} {TAKEN_OUT}"
    return options.unknown_field(path, [*others, *(prefix + known for known in field_paths())])
