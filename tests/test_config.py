"""The config: round trips, every rule of `validate`, and what the shipped files say."""

import functools
import json
import math
import runpy
from pathlib import Path

import pytest
from helpers import rejection

from jax_kdpr.config import checks, schema
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
STUDY_NAMES = (
    "study",
    "precision",
    "readings",
    "distillation",
    "guidance",
    "shots",
    "limits",
    "speed",
    "speed_96",
    "residual",
    "sampling",
)
STUDIES = [name for name in FILES if Path(name).stem in STUDY_NAMES]
SHIPPED = [name for name in FILES if name not in STUDIES]


def shipped(name: str):
    return runpy.run_path(str(CONFIGS / name))["get_config"]()


def changed(config: Config, **fields) -> Config:
    """Sets fields by path; "data__size" is data.size."""
    for path, value in fields.items():
        *sections, name = path.split("__")
        setattr(functools.reduce(getattr, sections, config), name, value)
    return config


def student(**fields) -> Config:
    defaults = {"regime": "student", "distill__teacher": "runs/teacher"}
    return changed(Config(), **defaults | {"loss__alpha": 0.9, "loss__beta": 0.05} | fields)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_config_validates_and_survives_json(name):
    config = shipped(name)
    assert config.regime == Path(name).stem
    if config.regime == "student":
        config.distill.teacher = "runs/teacher"
    checks.validate(config)
    back = schema.from_dict(json.loads(json.dumps(schema.to_dict(config))))
    assert back == config and schema.differences(config, back) == []
    for path, value in schema.flatten(config).items():
        assert type(schema.flatten(back)[path]) is type(value), path
    assert schema.check_types(config) == config


@pytest.mark.parametrize("name", STUDIES)
def test_shipped_study_is_sound_and_trains_teachers_first(name):
    study = shipped(name)
    declaration.check(study)
    assert len(study.seeds) >= 3
    order = declaration.training_order(study)
    for entry, declared in study.entries.items():
        assert not declared.teacher or order.index(declared.teacher) < order.index(entry)
    read = {entry for section in study.sections for entry in section.reads()}
    assert read == set(study.entries), "an entry that no section of the report reads"


def test_from_dict_takes_defaults_for_missing_fields():
    assert schema.from_dict({}) == Config()
    assert schema.from_dict({"optim": {"mask_lr": 0.5}}).optim.mask_lr == 0.5


def test_every_number_has_a_range_that_holds_its_default():
    for path, one in options.described(Config()).items():
        numbers = one.value if isinstance(one.value, tuple) else (one.value,)
        is_number = type(one.value) in (int, float, tuple)
        assert is_number == (one.within is not None), path
        assert not is_number or all(one.within.holds(number) for number in numbers), path


# The field set wrong, its value, what the message must say beside the field's name.
RANGES = [
    ("data.test_images", 10**30, "got about 10^30"),
    ("seed", 2**32, "in [0, 4294967295]"),
    ("scene.phase_range", 0.0, "in (0, 1000] radians"),
    ("noise.snr_db", math.nan, "finite"),
    ("noise.photons", math.inf, "finite"),
    ("device.levels", 2**31, "in [2, 65536] or 0"),
    ("spectral.filter_size", 4, "odd"),
    ("spectral.filter_size", 33, "data.size = 32"),
    ("net.widths", (8,), "2 to 12 widths"),
    ("net.widths", (8, 0), "in [1, 8192]"),
    ("data.size", 36, "set it to 32 or 40"),
    ("train.devices", 3, "divisor"),
    ("loss.alpha", 0.0, "in (0, inf)"),
    ("propagation.wavelength", 532e-6, "532 nm as 532e-9"),
    ("device.superpixel", 5, "divisor of data.size = 32"),
    ("device.levels", 1, "in [2, 65536] or 0"),
]


@pytest.mark.parametrize(("path", "value", "says"), RANGES)
def test_validate_names_the_field_and_what_it_takes(path, value, says):
    config = changed(Config(), **{path.replace(".", "__"): value})
    message = rejection(checks.validate, config)
    assert message.startswith(f"{path}: ")
    assert says in message


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
def test_only_a_student_has_a_teacher(fields):
    message = rejection(checks.validate, changed(Config(), regime="random", **fields))
    assert "loss.beta" in message and "distill.teacher" in message and "random" in message


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("data.size", 32.0, "an integer"),
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
    message = rejection(schema.check_types, config)
    assert message.startswith(f"{path}: expected") and says in message and repr(value) in message


def test_check_types_mends_what_is_meant():
    config = changed(Config(), loss__alpha=1, net__widths=[8, 16], regime="student")
    checked = schema.check_types(config)
    assert type(checked.loss.alpha) is float and checked.loss.alpha == 1.0
    assert checked.net.widths == (8, 16)
    assert checked.regime == "student"


def test_slots_reject_a_misspelt_field_in_a_config_file():
    with pytest.raises(AttributeError, match="'DataOptions' object has no attribute 'siez'"):
        Config().data.siez = 3


def test_differences_name_fields_and_leave_locations_out():
    ours = changed(Config(), data__dir="a", data__tfds_manual_dir="b", distill__teacher="c")
    assert schema.differences(ours, Config()) == []
    changed(ours, optim__mask_lr=0.02, regime="random", data__source="images")
    assert schema.differences(ours, Config()) == [
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
        ("regim", "regime"),
    ],
)
def test_unknown_field_suggests_the_nearest(typed, meant):
    assert schema.unknown_field(typed) == f"config: no field {typed!r}; did you mean {meant}?"


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


PROTOCOL = {
    **{"data.source": "fashion_mnist", "data.size": 96, "spectral.iterations": 25},
    # 0 is the whole split: 30,000 / 30,000 / 10,000.
    **dict.fromkeys(("data.train_images", "data.validation_images", "data.test_images"), 0),
    **dict.fromkeys(("optim.mask_lr", "optim.filter_lr", "optim.net_lr"), 5e-4),
    **{"optim.schedule": "constant", "train.batch_size": 64, "train.epochs": 120},
    **{"spectral.filter_size": 5, "spectral.weights": "soft", "masks.oversample": 1},
    **{"net.widths": (32, 64, 128, 256), "net.norm": "batch", "noise.kind": "none"},
    **{"scene.kind": "phase", "scene.phase_range": math.pi},
}


@pytest.mark.parametrize("regime", ["e2e", "random", "student", "teacher"])
def test_paper_configs_are_the_protocol_of_the_paper(regime):
    config = shipped(f"paper/{regime}.py")
    assert schema.flatten(config) | PROTOCOL == schema.flatten(config)
    assert config.masks.snapshots == (9 if regime == "teacher" else 1)
    if regime == "student":  # all terms of eq. 7 are at work
        sigma = 1 - config.loss.alpha - config.loss.beta
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
        case tuple():
            return tuple(one + 0.1 for one in default)
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
    checks.validate(schema.check_types(started))


@pytest.mark.parametrize(("path", "values"), schema.GONE.items())
def test_an_option_that_has_gone_is_read_where_it_changes_nothing(path, values):
    section, _, name = path.rpartition(".")
    for value in (*values, "other"):
        fields = {section: {name: value}} if section else {name: value}
        if value == "other":
            assert schema.LAST_COMMIT in rejection(schema.from_dict, fields)
        else:
            assert schema.from_dict(fields) == Config()


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
    taught = {"distill__teacher": "runs/teacher", "loss__alpha": 0.9}
    if choice == "propagation.kind":
        fields = {f"propagation__{name}": 1e-5 for name in ("wavelength", "pitch", "distance")}
    for reader in readers:
        needed = taught if reader == "student" else {}
        checks.validate(
            changed(Config(), **fields, **needed, **{choice.replace(".", "__"): reader})
        )
