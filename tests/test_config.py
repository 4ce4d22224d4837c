"""The config: round trips, every rule of `validate`, and what the shipped files say."""

import importlib.util
import json
import math
from pathlib import Path

import pytest
from helpers import rejection

from jax_kdpr.config import checks
from jax_kdpr.config import removed as removed_options
from jax_kdpr.config import schema as config_lib
from jax_kdpr.config.schema import Config
from jax_kdpr.core import options
from jax_kdpr.runs.assembly import build_system
from jax_kdpr.studies import declaration

CONFIGS = Path(__file__).parents[1] / "configs"
FILES = sorted(
    str(path.relative_to(CONFIGS))
    for path in CONFIGS.glob("*/*.py")
    if path.parent.name != "studies"
)
STUDY_NAMES = ("study", "readings", "distillation", "shots", "limits")
STUDIES = [name for name in FILES if Path(name).stem in STUDY_NAMES]
SHIPPED = [name for name in FILES if name not in STUDIES]


def shipped(name: str) -> Config:
    spec = importlib.util.spec_from_file_location("shipped_config", CONFIGS / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def changed(config: Config, **fields) -> Config:
    """Sets fields by path; "data__size" is data.size."""
    for path, value in fields.items():
        *sections, name = path.split("__")
        target = config
        for section in sections:
            target = getattr(target, section)
        setattr(target, name, value)
    return config


def student(**fields) -> Config:
    defaults = {"regime": "student", "distill__teacher": "runs/teacher"}
    return changed(Config(), **defaults | {"loss__alpha": 0.9, "loss__beta": 0.05} | fields)


def test_configs_are_shipped_for_each_scale_and_regime():
    regimes = ("e2e", "random", "student", "teacher")
    for scale in ("quickstart", "cpu", "paper"):
        assert {f"{scale}/{regime}.py" for regime in regimes} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_config_validates_and_survives_json(name):
    config = shipped(name)
    if config.regime == "student":
        config.distill.teacher = "runs/teacher"
    checks.validate(config)
    back = config_lib.from_dict(json.loads(json.dumps(config_lib.to_dict(config))))
    assert back == config
    for path, value in config_lib.flatten(config).items():
        assert type(config_lib.flatten(back)[path]) is type(value), path
    assert config_lib.check_types(config) == config
    assert config_lib.differences(config, back) == []


@pytest.mark.parametrize("name", STUDIES)
def test_shipped_study_is_sound_and_trains_teachers_first(name):
    study = shipped(name)
    declaration.check(study)
    assert len(study.seeds) >= 3
    order = declaration.training_order(study)
    for entry, declared in study.entries.items():
        assert not declared.teacher or order.index(declared.teacher) < order.index(entry)
    read = {entry for section in study.sections for entry in declaration.named_entries(section)}
    assert read == set(study.entries), "an entry that no section of the report reads"


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_config_is_named_after_its_regime(name):
    assert shipped(name).regime == Path(name).stem


def test_flatten_names_every_field_by_its_path():
    config = changed(Config(), seed=7, data__size=48, net__widths=(8, 16))
    flat = config_lib.flatten(config)
    assert (flat["seed"], flat["data.size"], flat["net.widths"]) == (7, 48, (8, 16))
    nested = config_lib.to_dict(config)
    leaves = [
        f"{section}.{name}" if isinstance(value, dict) else section
        for section, value in nested.items()
        for name in (value if isinstance(value, dict) else [section])
    ]
    assert leaves == list(flat)


def test_from_dict_takes_defaults_for_missing_fields():
    assert config_lib.from_dict({}) == Config()
    assert config_lib.from_dict({"optim": {"mask_lr": 0.5}}).optim.mask_lr == 0.5


def test_every_number_has_a_range_that_holds_its_default():
    for path, one in options.described(Config()).items():
        numbers = one.value if isinstance(one.value, tuple) else (one.value,)
        is_number = type(one.value) in (int, float, tuple)
        assert is_number == (one.within is not None), path
        assert not is_number or all(one.within.holds(number) for number in numbers), path


# The field set wrong, its value, what the message must say beside the field's name.
RANGES = [
    ("data.train_images", -1, "in [0, 10000000]"),
    ("data.validation_images", 2**31, "in [0, 10000000]"),
    ("data.test_images", 10**30, "got about 10^30"),
    ("data.seed", -1, "in [0, 4294967295]"),
    ("seed", -1, "in [0, 4294967295]"),
    ("seed", 2**32, "in [0, 4294967295]"),
    ("masks.snapshots", 0, "in [1, 4096]"),
    ("spectral.iterations", 0, "in [1, 10000]"),
    ("train.epochs", 0, "in [1, 1000000]"),
    ("train.batch_size", 0, "in [1, 65536]"),
    ("train.eval_batch_size", -1, "in [0, 65536]"),
    ("train.devices", -1, "in [0, 4096]"),
    ("train.scan_steps", -1, "in [0, 1000000]"),
    ("scene.phase_range", 0.0, "in (0, 1000] radians"),
    ("scene.phase_range", math.nan, "finite"),
    ("noise.photons", 0.5, "in [1, 2000000000] photoelectrons"),
    ("noise.photons", 8e9, "in [1, 2000000000] photoelectrons"),
    ("noise.photons", math.inf, "finite"),
    ("spectral.filter_sigma", -1.0, "in (0, 1000]"),
    ("optim.net_lr", 0.0, "in (0, 1e+30]"),
    ("optim.mask_lr", -0.1, "in [0, 1e+30]"),
    ("optim.mask_lr", 1e39, "got 1e+39"),
    ("optim.filter_lr", math.nan, "finite"),
    ("noise.snr_db", math.nan, "finite"),
    ("loss.rho", -1e-3, "in [0, 1000000]"),
    ("data.validation_fraction", 1.5, "in [0, 1]"),
    ("data.test_fraction", -0.5, "in [0, 1]"),
    ("scene.min_amplitude", 1.5, "in [0, 1]"),
    ("masks.oversample", 3, "in [1, 2]"),
    ("device.levels", 2**31, "in [2, 65536] or 0"),
    ("spectral.threshold", 1.5, "in [0, 1]"),
    ("spectral.fraction", 0.0, "in (0, 1]"),
    ("spectral.filter_size", 4, "odd"),
    ("spectral.filter_size", 33, "data.size = 32"),
    ("data.size", 10, "in [11, 8192] pixels"),
    ("net.widths", (8,), "2 to 12 widths"),
    ("net.widths", (8,) * 40, "2 to 12 widths"),
    ("net.widths", (8, 0), "in [1, 8192]"),
    ("data.size", 36, "multiple of 8"),
    ("train.devices", 3, "divisor"),
    ("loss.alpha", 0.0, "in (0, inf)"),
    ("propagation.wavelength", 532e-6, "532 nm as 532e-9"),
    ("propagation.distance", 200.0, "200 mm as 0.2"),
]


@pytest.mark.parametrize(("path", "value", "says"), RANGES)
def test_validate_names_the_field_and_what_it_takes(path, value, says):
    config = changed(Config(), **{path.replace(".", "__"): value})
    message = rejection(checks.validate, config)
    assert message.startswith(f"{path}: ")
    assert says in message


def test_size_that_does_not_divide_suggests_two_that_do():
    message = rejection(checks.validate, changed(Config(), data__size=36))
    assert "set it to 32 or 40" in message
    for size in (32, 40):
        checks.validate(changed(Config(), data__size=size))


def test_group_norm_wants_multiples_of_eight():
    config = changed(Config(), net__norm="group", net__widths=(8, 12))
    message = rejection(checks.validate, config)
    assert message.startswith("net.widths: ") and "8" in message
    checks.validate(changed(config, net__widths=(8, 16)))


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"loss__alpha": 0.9, "loss__beta": 0.2}, ("alpha", "beta", "sigma", "-0.1")),
        ({"loss__alpha": 1.2, "loss__beta": 0.0}, ("loss.alpha", "[0, 1]")),
        ({"loss__alpha": 0.5, "loss__beta": -0.1}, ("loss.beta", "[0, 1]")),
        ({"distill__teacher": ""}, ("distill.teacher", "--config.distill.teacher=RUN_DIR")),
    ],
)
def test_validate_rejects_a_student(fields, names):
    message = rejection(checks.validate, student(**fields))
    assert all(name in message for name in names), message


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.7])
def test_validate_accepts_the_edges_of_the_loss_weights(alpha):
    checks.validate(student(loss__alpha=alpha, loss__beta=1 - alpha))


@pytest.mark.parametrize("fields", [{"loss__beta": 0.1}, {"distill__teacher": "runs/teacher"}])
@pytest.mark.parametrize("regime", ["teacher", "e2e", "random"])
def test_only_a_student_has_a_teacher(regime, fields):
    message = rejection(checks.validate, changed(Config(), regime=regime, **fields))
    assert "loss.beta" in message and "distill.teacher" in message and regime in message


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("data.size", 32.0, "an integer"),
        ("data.size", "32", "an integer"),
        ("seed", True, "an integer"),
        ("loss.alpha", "1", "a number"),
        ("data.rescale", 1, "True or False"),
        ("data.dir", None, "text"),
        ("net.widths", 8, "integers"),
        ("net.widths", (8, 16.0), "integers"),
        ("regime", "techer", "one of teacher, e2e, random, student"),
        ("spectral.weights", 1, "soft"),
        ("data", 3, "3"),
    ],
)
def test_check_types_rejects_what_a_config_file_assigned(path, value, says):
    config = changed(Config(), **{path.replace(".", "__"): value})
    message = rejection(config_lib.check_types, config)
    assert message.startswith(f"{path}: expected") and says in message and repr(value) in message


def test_check_types_mends_what_is_meant():
    config = changed(Config(), loss__alpha=1, net__widths=[8, 16], regime="student")
    checked = config_lib.check_types(config)
    assert type(checked.loss.alpha) is float and checked.loss.alpha == 1.0
    assert checked.net.widths == (8, 16)
    assert checked.regime == "student"


def test_slots_reject_a_misspelt_field_in_a_config_file():
    with pytest.raises(AttributeError, match="'DataOptions' object has no attribute 'siez'"):
        Config().data.siez = 3


def test_differences_name_fields_and_leave_locations_out():
    ours = changed(Config(), data__dir="a", data__tfds_manual_dir="b", distill__teacher="c")
    assert config_lib.differences(ours, Config()) == []
    changed(ours, optim__mask_lr=0.02, regime="random", data__source="images")
    assert config_lib.differences(ours, Config()) == [
        "regime: random against e2e",
        "data.source: images against scenes",
        "optim.mask_lr: 0.02 against 0.0005",
    ]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("data.siez", "data.size"),
        ("opt.mask_lr", "optim.mask_lr"),
        ("train.size", "data.size"),
        ("snapshot", "masks.snapshots"),
        ("regim", "regime"),
    ],
)
def test_unknown_field_suggests_the_nearest(typed, meant):
    assert config_lib.unknown_field(typed) == f"config: no field {typed!r}; did you mean {meant}?"


def test_unknown_field_like_nothing_lists_the_sections():
    message = config_lib.unknown_field("zzzzzzzzzz")
    assert all(f" {section}" in message for section in ("data", "masks", "optim", "train"))


def test_from_dict_rejects_an_unknown_field():
    message = rejection(config_lib.from_dict, {"data": {"siez": 3}})
    assert "data.siez" in message and "data.size" in message


def test_a_system_has_the_options_of_its_config_and_keeps_them():
    config = changed(
        Config(), data__size=48, masks__snapshots=3, spectral__iterations=7, net__widths=(8, 16)
    )
    system = build_system(config)
    assert (system.camera.size, system.snapshots) == (48, 3)
    assert (system.spectral.iterations, system.net.widths) == (7, (8, 16))
    assert system == build_system(config) and hash(system) == hash(build_system(config))
    config.noise.kind = "poisson"
    assert system.camera.noise.kind == "none" and system != build_system(config)


@pytest.mark.parametrize("regime", ["e2e", "random", "student", "teacher"])
def test_paper_configs_are_the_protocol_of_the_paper(regime):
    config = shipped(f"paper/{regime}.py")
    assert config.data.source == "fashion_mnist"
    assert config.data.size == 96
    # 0 is the whole split: 30,000 / 30,000 / 10,000.
    assert config.data.train_images == config.data.validation_images == 0
    assert config.data.test_images == 0
    assert config.optim.mask_lr == config.optim.filter_lr == config.optim.net_lr == 5e-4
    assert config.optim.schedule == "constant"
    assert config.train.batch_size == 64
    assert config.train.epochs == 120
    assert config.spectral.iterations == 25
    assert config.spectral.filter_size == 5
    assert config.spectral.weights == "soft"
    assert config.net.widths == (32, 64, 128, 256)
    assert config.net.norm == "batch"
    assert config.masks.snapshots == (9 if regime == "teacher" else 1)
    assert config.masks.oversample == 1
    assert config.scene.kind == "phase" and config.scene.phase_range == math.pi
    assert config.noise.kind == "none"
    sigma = 1 - config.loss.alpha - config.loss.beta
    if regime == "student":  # all terms of eq. 7 are at work
        assert min(config.loss.alpha, config.loss.beta, sigma) > 0
    else:
        assert (config.loss.alpha, config.loss.beta) == (1.0, 0.0)


def another(path: str):
    """A valid value of an option that is not the default."""
    about = options.described(Config())[path]
    default = about.value
    match default:
        case str() if about.choices:
            return next(choice for choice in about.choices if choice != default)
        case bool():
            return not default
        case str():
            return "somewhere"
        case int():
            return default + 1
    return default * 1.01 if default else 1e-5


def test_a_student_without_guidance_takes_something_else_from_its_teacher():
    alone = {"loss__alpha": 1.0, "loss__beta": 0.0}
    message = rejection(
        checks.validate,
        student(**alone, distill__start="all", distill__targets="live"),
    )
    assert message.startswith("distill.targets") and "loss.alpha" in message
    message = rejection(checks.validate, student(**alone))
    assert "takes nothing from its teacher" in message
    started = student(**alone, distill__start="all")
    checks.validate(config_lib.check_types(started))


@pytest.mark.parametrize(("path", "values"), removed_options.OPTIONS.items())
def test_an_option_that_has_gone_is_read_where_it_changes_nothing(path, values):
    section, _, name = path.rpartition(".")
    for value in values:
        fields = {name: value}
        assert config_lib.from_dict({section: fields} if section else fields) == Config()
    fields = {name: "other"}
    message = rejection(config_lib.from_dict, {section: fields} if section else fields)
    assert message.startswith(f"{path}='other' has been taken out")
    assert removed_options.LAST_COMMIT in message


@pytest.mark.parametrize(("path", "choice"), removed_options.CHOICES.items())
def test_a_choice_that_has_gone_names_a_commit_that_has_it(path, choice):
    section, name = path.split(".")
    message = rejection(config_lib.from_dict, {section: {name: choice}})
    assert removed_options.LAST_COMMIT in message


CONDITIONS = {p: one.when for p, one in options.described(Config()).items() if one.when}


@pytest.mark.parametrize("path", CONDITIONS)
def test_an_option_that_nothing_reads_is_refused(path):
    choice, readers = CONDITIONS[path]
    other = another(path)
    unread = next(c for c in options.described(Config())[choice].choices if c not in readers)
    fields = {path.replace(".", "__"): other}
    message = rejection(
        checks.validate, changed(Config(), **fields, **{choice.replace(".", "__"): unread})
    )
    assert message.startswith(f"{path}: ") and choice in message
    if choice == "regime":
        fields |= {"distill__teacher": "runs/teacher", "loss__alpha": 0.9}
    if choice == "propagation.kind":
        fields = {f"propagation__{name}": 1e-5 for name in ("wavelength", "pitch", "distance")}
    for reader in readers:
        checks.validate(changed(Config(), **fields, **{choice.replace(".", "__"): reader}))
