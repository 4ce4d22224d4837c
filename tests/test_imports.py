"""The package's structure: what each subpackage may import, and what is imported in one place."""

import ast
import graphlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "jax_kdpr"
# A subpackage imports only itself and those before it; commands stand beside them, and nothing
# imports one.
SUBPACKAGES = (
    *("core", "data", "optics", "recovery", "config", "runs", "training", "evaluation", "lab"),
    *("studies", "interface"),
)


def module_name(path: Path) -> str:
    """E.g. "optics.cdp"; a package's own file has the name of the package."""
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


def users(library: str) -> set[str]:
    return {
        module
        for module in MODULES
        if any(f"{name}.".startswith(f"{library}.") for name in imported(SOURCES[module]))
    }


def test_a_subpackage_imports_only_those_before_it():
    for module in MODULES:
        subpackage = module.partition(".")[0]
        if subpackage in SUBPACKAGES:
            allowed = SUBPACKAGES[: SUBPACKAGES.index(subpackage) + 1]
            found = {other.partition(".")[0] for other in own_imports(module)}
            assert found <= set(allowed), module


def test_modules_import_each_other_in_no_circle():
    graphlib.TopologicalSorter({module: own_imports(module) for module in MODULES}).prepare()


def test_imports_are_absolute():
    assert not [m for m in MODULES if any(name.startswith(".") for name in imported(SOURCES[m]))]


@pytest.mark.parametrize(
    ("library", "owners"),
    [
        ("orbax", {"runs.checkpoint"}),
        ("matplotlib", {"core.figures"}),
        (
            "flax.nnx",
            {f"recovery.networks.{name}" for name in ("network", "unet", "residual_unet")},
        ),
        ("tensorboardX", {"runs.metric_log"}),
        ("wandb", {"runs.metric_log"}),
        ("tensorflow_datasets", {"data.fashion_mnist"}),
        ("torch", {"evaluation.speed.torch_twin", "evaluation.speed.torch_worker"}),
    ],
)
def test_library_is_imported_in_one_place(library, owners):
    assert users(library) == owners


def test_package_has_no_bare_asserts():
    lines = [
        f"{module}:{node.lineno}"
        for module, tree in SOURCES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert)
    ]
    assert not lines
