"""The one-way order of imports and the few rules about who may import what."""

import ast
import graphlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "jax_kdpr"

# A module imports from its own layer (without cycles) and from those above it in this list.
LAYERS = [
    (
        "errors",
        "types",
        "choices",
        "tables",
        "lookup",
        "pages",
        "whole_files",
        "json_files",
        "limits",
        "progress",
        "signals",
        "figures",
    ),
    ("physics",),
    (
        "models",
        "sharding",
        "runtime",
        "losses",
        "metrics",
        "data",
        "config",
        "config_fields",
        "removed_options",
    ),
    ("camera", "export.layout", "export.files"),
    ("classical",),
    ("refine_flags", "bench_file"),
    ("systems", "presets", "run_folder", "checkpoint", "config_rules"),
    ("assembly", "trained", "training.state", "training.targets", "training.metric_log"),
    ("training.steps", "training.teacher"),
    ("training.preparation",),
    ("evaluation", "analysis.bench_errors", "training.outcome", "training.loop", "bench"),
    ("plots", "help_page"),
    ("pictures", "cli"),
    ("scoring", "export.plan", "analysis.masks"),
    ("export.writing", "export.verification", "analysis.mask_report", "analysis.solving"),
    ("studies", "frames"),
    (
        *("train", "evaluate", "reconstruct", "export_mask", "benchmark", "study"),
        *("ambiguity", "geometry", "tolerance", "solve", "simulate_bench", "calibrate"),
    ),
]
COMMANDS = LAYERS[-1]
PACKAGES = (
    *("", "training", "physics", "models", "data", "bench", "studies"),
    *("export", "analysis", "frames", "pages"),
)
CONFIG_USERS = {
    *(
        "presets",
        "run_folder",
        "config_rules",
        "cli",
        "help_page",
        "assembly",
        "trained",
        "training.teacher",
        "training.preparation",
        "training.loop",
        "scoring",
        "export.plan",
        "bench.cases",
        "frames.loaded",
    ),
    "export.verification",
    *(f"studies.{name}" for name in ("declaration", "runs", "estimate", "programs")),
    *(f"studies.{name}" for name in ("runner", "grids", "trials")),
    *COMMANDS,
}


def module_name(path: Path) -> str:
    """E.g. "physics.cdp"; a package's own file has the name of the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


SOURCES = {module_name(path): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}
MODULES = sorted(SOURCES)


def imported(tree: ast.Module) -> set[str]:
    """Full names of everything imported anywhere in a module, functions included."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            names |= {f"{origin}.{alias.name}" for alias in node.names}
    return names


def own_imports(module: str) -> set[str]:
    """Modules of ours that a module imports."""
    found = set()
    for name in imported(SOURCES[module]):
        if name.startswith("jax_kdpr."):
            inner = name.removeprefix("jax_kdpr.")
            found.add(inner if inner in SOURCES else inner.rpartition(".")[0])
    return found


def layer(module: str) -> int:
    for level, members in enumerate(LAYERS):
        if any(module == member or module.startswith(member + ".") for member in members):
            return level
    raise AssertionError(f"{module} has no place in LAYERS: add it where its imports allow")


def users(library: str) -> set[str]:
    return {
        module
        for module in MODULES
        if any(f"{name}.".startswith(f"{library}.") for name in imported(SOURCES[module]))
    }


@pytest.mark.parametrize("module", [name for name in MODULES if name not in PACKAGES])
def test_imports_go_one_way(module):
    upward = [other for other in own_imports(module) if other and layer(other) > layer(module)]
    assert not upward


def test_nothing_imports_a_command_line():
    assert not {m for m in MODULES if own_imports(m) & set(COMMANDS)}


def test_packages_import_nothing_of_ours():
    for package in PACKAGES:
        assert own_imports(package) <= ({"signals"} if package == "" else set()), package


def test_no_cycles():
    graphlib.TopologicalSorter({module: own_imports(module) for module in MODULES}).prepare()


def test_imports_are_absolute():
    assert not [m for m in MODULES if any(name.startswith(".") for name in imported(SOURCES[m]))]


@pytest.mark.parametrize(
    ("library", "owners"),
    [
        ("orbax", {"checkpoint"}),
        ("matplotlib", {"figures"}),
        ("flax.nnx", {"models.unet", "systems"}),
        ("tensorboardX", {"training.metric_log"}),
        ("tensorflow_datasets", {"data.fashion_mnist"}),
        ("torch", {"bench.torch_twin", "bench.torch_worker"}),
    ],
)
def test_library_is_imported_in_one_place(library, owners):
    assert users(library) == owners


def test_few_modules_know_the_config():
    knowing = {module for module in MODULES if "config" in own_imports(module)}
    assert knowing <= CONFIG_USERS
    assert "training.loop" in knowing


def test_package_has_no_bare_asserts():
    lines = [
        f"{module}:{node.lineno}"
        for module, tree in SOURCES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert)
    ]
    assert not lines
