"""The package's imports: arrows point only downward, no circle, no module that is too long."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import cosmic

#: From bottom to top, as docs/design.md has them. A layer's modules may import its own and lower
#: ones. A folder counts as one name; so does the package itself, its __init__.
LAYERS = (
    {"_core"},
    {"command", "errors", "loading", "moments", "parts", "rungs", "threads"},
    {"state"},
    {"capital"},
    {"step"},
    {"controllers"},
    {
        "activations", "backends", "backward", "check", "cosmic", "distributed", "estimate",
        "grouping", "logging", "models", "ops", "optimizer", "planning", "policies", "products",
        "quantization", "reports", "vocabulary", "with_checkpoints", "with_controllers",
        "with_moments", "with_reports",
    },
    {"exact", "presets"},
    {"train", "viewer"},
    {"finetune"},
    {"cli"},
)  # fmt: skip
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}
MOST_LINES = 400


def modules_of(package: Path) -> dict[str, Path]:
    """Every module by its dotted name; the compiled one by its stub."""
    files = [*package.rglob("*.py"), *package.rglob("*.pyi")]
    dotted = {file: file.relative_to(package.parent).with_suffix("").parts for file in files}
    return {
        ".".join(parts[:-1] if parts[-1] == "__init__" else parts): file
        for file, parts in dotted.items()
    }


def imports_of(module: str, modules: dict[str, Path]) -> set[str]:
    """The package's modules that one imports: anywhere in it, for types alone too."""
    path = modules[module]
    package = module.split(".") if path.stem == "__init__" else module.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *(node.module or "").split(".")]).strip(".")
            inner = {f"{base}.{alias.name}" for alias in node.names}
            found |= {name if name in modules else base for name in inner}
    return found & set(modules)


def room_of(module: str) -> str:
    """The folder or, at the top level, the module itself."""
    return module.split(".")[min(1, module.count("."))]


def upward(imports: dict[str, set[str]]) -> Iterator[str]:
    for module, targets in imports.items():
        if room_of(module) not in HEIGHT:
            yield f"{module} is in no layer"
            continue
        for target in sorted(targets):
            if HEIGHT.get(room_of(target), len(LAYERS)) > HEIGHT[room_of(module)]:
                yield f"{module} imports {target}"


def circle(imports: dict[str, set[str]]) -> list[str]:
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def too_long(files: Iterable[Path]) -> list[str]:
    return [str(f) for f in files if len(f.read_text("utf-8").splitlines()) > MOST_LINES]


def complaints(package: Path) -> list[str]:
    modules = modules_of(package)
    imports = {module: imports_of(module, modules) for module in modules}
    return [*upward(imports), *circle(imports), *too_long(modules.values())]


def test_arrows_point_downward_without_a_circle_between_short_modules() -> None:
    package = Path(str(cosmic.__file__)).parent
    assert {room_of(module) for module in modules_of(package)} == set(HEIGHT)
    assert complaints(package) == []


@pytest.mark.parametrize(
    ("file", "text", "found"),
    [
        (
            "state/new.py",
            "from ..step import plans",
            ["cosmic.state.new imports cosmic.step.plans"],
        ),
        (
            "loading.py",
            "def late():\n    import cosmic.state.old",
            ["cosmic.loading imports cosmic.state.old"],
        ),
        (
            "step/new.py",
            "if TYPE_CHECKING:\n    from ..optimizer import Cosmic",
            ["cosmic.step.new imports cosmic.optimizer"],
        ),
        ("cellar.py", "", ["cosmic.cellar is in no layer"]),
        (
            "state/old.py",
            "from .older import x",
            ["cosmic.state.old", "cosmic.state.older", "cosmic.state.old"],
        ),
        ("ops.py", "\n" * (MOST_LINES + 1), ["ops.py"]),
        ("optimizer.py", "from .step import plans\nfrom .rungs import Rung\nimport math", []),
        ("presets/one.py", "from ..optimizer import Cosmic\nfrom cosmic import *", []),
    ],
)
def test_what_is_not_so_is_found(tmp_path: Path, file: str, text: str, found: list[str]) -> None:
    package = tmp_path / "cosmic"
    files = {
        "__init__.py": "from .optimizer import Cosmic",
        "optimizer.py": "",
        "rungs.py": "",
        "state/__init__.py": "",
        "state/old.py": "from ..rungs import Rung",
        "state/older.py": "from . import old",
        "step/__init__.py": "",
        "step/plans.py": "from ..state.old import x",
    }
    for name, content in {**files, file: text}.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert [word.removeprefix(f"{package}/") for word in complaints(package)] == found
