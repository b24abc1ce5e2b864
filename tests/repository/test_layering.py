"""Imports go down only: who may know whom, read from the source without running it."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[2] / "functorch_kit"

FLOORS = {
    **dict.fromkeys(["types", "errors"], 0),
    **dict.fromkeys(["nn", "losses", "metrics", "precision", "transforms"], 1),
    **dict.fromkeys(["untrusted", "safetensors"], 1),
    **dict.fromkeys(["models", "interop", "program", "data"], 2),
    **dict.fromkeys(["train", "distributed", "checkpoint", "report", "export", "generation"], 3),
    **dict.fromkeys(
        ["run", "record", "lane", "compiled", "loop", "modes", "planning", "supervise"], 4
    ),
    **dict.fromkeys(["certify", "config"], 5),
    **dict.fromkeys(["sweep"], 6),
}

# ml_dtypes: NumPy's bfloat16, which JAX brings.
ANY_ROOM = {"jax", "jaxlib", "jaxtyping", "ml_dtypes", "numpy", "optax"}
# One third-party library, one place. An empty set: nowhere in the package.
ROOMS_OF_LIBRARY: dict[str, set[str]] = {
    "orbax": {"checkpoint"},
    "grain": {"data"},
    "sklearn": {"data"},
    "pyarrow": {"data"},
    "PIL": {"data"},
    "absl": {"data"},  # Grain's flags
    "tokenizers": {"data"},
    "rich": {"report"},
    "matplotlib": {"report"},
    "tensorboardX": {"report"},
    "safetensors": set(),  # our own few lines, which trust nothing
    "jax2onnx": {"export"},
    "onnx": {"export"},
    "onnxruntime": {"export"},
    "yaml": {"run"},
    "flax": {"interop"},
    "equinox": {"interop"},
    "haiku": {"interop"},
    # config/ is dataclasses only: the core needs neither Hydra nor OmegaConf.
    "hydra": set(),
    "omegaconf": set(),
    "torch": set(),
    "keras": set(),
    "tensorflow": set(),
}
# `import functorch_kit` costs little more than `import jax`.
HEAVY = [
    "flax", "orbax", "grain", "sklearn", "hydra", "omegaconf", "matplotlib", "rich", "tensorboardX",
    "pyarrow", "PIL", "tokenizers", "equinox", "haiku", "safetensors",
]  # fmt: skip


class Import(NamedTuple):
    """One import as written: ``module`` (dotted) is imported by ``importer`` (dotted)."""

    importer: str
    module: str
    where: str
    at_import: bool
    """False inside a function and under TYPE_CHECKING: no part of a cycle of module loading."""


def _dotted(file: Path, package: Path) -> str:
    parts = file.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _modules(package: Path) -> dict[str, Path]:
    return {_dotted(file, package): file for file in sorted(package.rglob("*.py"))}


def _room(module: str) -> str:
    """The room of a dotted name inside the package; "" for the package itself."""
    return f"{module}..".split(".")[1]


def _names_imported(node: ast.AST, importer: str, is_package: bool) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=module, names=names, level=level):
            if level:
                # `from . import x` in a package is relative to itself, in a module to its parent.
                parents = importer.split(".")
                base = parents[: len(parents) - level + is_package]
                module = ".".join([*base, *([module] if module else [])])
            yield from (f"{module}.{alias.name}" for alias in names)
        case ast.Call(func=ast.Attribute(attr="import_module") | ast.Name(id="import_module")):
            if node.args and isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value)
        case _:
            return


def _walk(node: ast.AST, at_import: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        deferred = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
            isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        )
        yield child, at_import and not deferred
        yield from _walk(child, at_import and not deferred)


def imports(package: Path) -> list[Import]:
    """Every import in a package, those of the package itself resolved to modules that exist."""
    modules = _modules(package)
    found: list[Import] = []
    for importer, file in modules.items():
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node, at_import in _walk(tree, True):
            where = f"{file.relative_to(package.parent)}:{getattr(node, 'lineno', 0)}"
            for name in _names_imported(node, importer, file.stem == "__init__"):
                if name == f"{package.name}.__version__":
                    continue  # a constant: it says nothing of any room
                # `from package.room import name`: the name may be a module or something in it.
                inside = name.split(".")[0] == package.name
                while inside and name not in modules and "." in name:
                    name = name.rpartition(".")[0]
                found.append(Import(importer, name, where, at_import))
    return found


def unknown_rooms(package: Path, floors: Mapping[str, int] = FLOORS) -> list[str]:
    """Rooms that the table of floors does not list."""
    rooms = sorted({_room(module) for module in _modules(package)} - {""})
    return [
        f"{package.name}/{room} has no floor: add it to FLOORS in tests/repository/test_layering.py"
        for room in rooms
        if room not in floors
    ]


def upward_imports(package: Path, floors: Mapping[str, int] = FLOORS) -> list[str]:
    """Imports of a higher floor, or of the package's own front door."""
    found: list[str] = []
    for importer, module, where, _ in imports(package):
        room, target = _room(importer), _room(module)
        if module.split(".")[0] != package.name or room == "":
            continue  # the front door may name every room
        if target == "":
            found.append(f"{where}: {room} imports {package.name} itself: name the room it needs")
        elif (higher := floors.get(target, 0)) > (floor := floors.get(room, 0)):
            found.append(
                f"{where}: {room} (floor {floor}) imports {target} (floor {higher}):"
                " imports go down only"
            )
    return found


def _cycles(edges: Mapping[str, set[str]]) -> list[str]:
    """Each cycle once, written from its alphabetically first member."""
    found: set[str] = set()

    def visit(node: str, path: list[str]) -> None:
        if node in path:
            cycle = path[path.index(node) :]
            first = cycle.index(min(cycle))
            found.add(" -> ".join([*cycle[first:], *cycle[:first], cycle[first]]))
        elif node not in finished:
            for target in sorted(edges.get(node, ())):
                visit(target, [*path, node])
            finished.add(node)

    finished: set[str] = set()
    for node in sorted(edges):
        visit(node, [])
    return sorted(found)


def cycles(package: Path) -> list[str]:
    """Cycles between rooms (any import counts) and between modules (those run while loading)."""
    rooms: dict[str, set[str]] = {}
    modules: dict[str, set[str]] = {}
    for importer, module, _, at_import in imports(package):
        if module.split(".")[0] != package.name or _room(importer) == "" or _room(module) == "":
            continue
        if _room(importer) != _room(module):
            rooms.setdefault(_room(importer), set()).add(_room(module))
        if at_import and importer != module:
            modules.setdefault(importer, set()).add(module)
    return [f"cycle: {cycle}" for cycle in _cycles(rooms) + _cycles(modules)]


def misplaced_libraries(package: Path) -> list[str]:
    """Third-party libraries outside their rooms, and ones that no room has been given."""
    found: list[str] = []
    for importer, module, where, _ in imports(package):
        library = module.split(".")[0]
        if library in sys.stdlib_module_names | ANY_ROOM | {package.name}:
            continue
        allowed = ROOMS_OF_LIBRARY.get(library)
        if allowed is None:
            found.append(f"{where}: {library} has no room: add it to ROOMS_OF_LIBRARY")
        elif _room(importer) not in allowed:
            places = " and ".join(sorted(allowed)) or "nowhere in the package"
            found.append(f"{where}: {library} belongs in {places}, not in {_room(importer)}")
    return found


def heavy_imports(package: Path) -> list[str]:
    """Heavy libraries that a bare import of the package loads, seen in a process of its own."""
    code = f"import {package.name}, json, sys; print(json.dumps(sorted(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(package.parent)},
        cwd=package.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(json.loads(result.stdout))
    return [name for name in HEAVY if name in loaded]


def _plant(root: Path, files: Mapping[str, str]) -> Path:
    package = root / "planted"
    for name, text in {"__init__.py": "", **files}.items():
        file = package / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return package


def test_imports_go_down_only():
    assert upward_imports(PACKAGE) == []


def test_there_is_no_import_cycle():
    assert cycles(PACKAGE) == []


def test_every_room_has_a_floor():
    assert unknown_rooms(PACKAGE) == []


def test_each_third_party_library_stays_in_its_room():
    assert misplaced_libraries(PACKAGE) == []


@pytest.mark.smoke
def test_importing_the_package_loads_nothing_heavy():
    assert heavy_imports(PACKAGE) == []


@pytest.mark.parametrize(
    "statement",
    [
        "from planted.train import step",
        "import planted.train.step",
        "from planted import train",
        "from ..train import step",
        "def f():\n    from planted.train import step",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import planted.train",
        "import importlib\ntrain = importlib.import_module('planted.train')",
    ],
)
def test_an_upward_import_is_found_however_it_is_written(tmp_path: Path, statement: str):
    files = {"nn/__init__.py": "", "nn/dense.py": statement, "train/step.py": ""}
    files["train/__init__.py"] = "from planted.nn import dense"
    found = upward_imports(_plant(tmp_path, files))
    assert len(found) == 1
    assert found[0].startswith("planted/nn/dense.py:")
    assert "nn (floor 1) imports train (floor 3)" in found[0]


def test_a_room_that_imports_the_front_door_is_found(tmp_path: Path):
    found = upward_imports(_plant(tmp_path, {"nn.py": "import planted as fk"}))
    assert found == ["planted/nn.py:1: nn imports planted itself: name the room it needs"]


def test_a_downward_import_and_the_front_door_are_left_alone(tmp_path: Path):
    files = {"__init__.py": "from planted import train", "types.py": ""}
    files["train.py"] = "from planted.types import Model\nfrom planted import __version__"
    assert upward_imports(_plant(tmp_path, files)) == []


def test_a_cycle_between_rooms_of_one_floor_is_found_even_when_deferred(tmp_path: Path):
    files = {"losses.py": "def f():\n    import planted.metrics"}
    files["metrics.py"] = "from planted.losses import f"
    assert cycles(_plant(tmp_path, files)) == ["cycle: losses -> metrics -> losses"]


def test_a_cycle_between_modules_of_one_room_is_found(tmp_path: Path):
    files = {"nn/__init__.py": "", "nn/a.py": "import planted.nn.b", "nn/b.py": "from . import c"}
    files["nn/c.py"] = "from planted.nn.a import x"
    expected = "cycle: planted.nn.a -> planted.nn.b -> planted.nn.c -> planted.nn.a"
    assert cycles(_plant(tmp_path, files)) == [expected]


def test_a_room_without_a_floor_is_found(tmp_path: Path):
    (found,) = unknown_rooms(_plant(tmp_path, {"nn.py": "", "attic/__init__.py": ""}))
    assert found.startswith("planted/attic has no floor: add it")


@pytest.mark.parametrize("library", sorted(ROOMS_OF_LIBRARY))
def test_a_library_outside_its_room_is_found_and_inside_it_is_not(tmp_path: Path, library: str):
    files = {f"{room}.py": f"import {library}" for room in ROOMS_OF_LIBRARY[library]}
    files["losses.py"] = f"def f():\n    from {library}.part import name"
    (found,) = misplaced_libraries(_plant(tmp_path, files))
    assert found.startswith(f"planted/losses.py:2: {library} belongs in ")


def test_a_library_that_nobody_gave_a_room_is_found(tmp_path: Path):
    (found,) = misplaced_libraries(_plant(tmp_path, {"data.py": "import os, jax, pandas as pd"}))
    assert found == "planted/data.py:1: pandas has no room: add it to ROOMS_OF_LIBRARY"


@pytest.mark.parametrize("library", HEAVY)
def test_a_heavy_import_at_the_front_door_is_found(tmp_path: Path, library: str):
    # A stand-in of that name, so that the test needs none of them installed.
    (tmp_path / f"{library}.py").write_text("", encoding="utf-8")
    package = _plant(tmp_path, {"__init__.py": "import planted.nn", "nn.py": f"import {library}"})
    assert heavy_imports(package) == [library]
