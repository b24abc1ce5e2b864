"""Files stay short, names say what, and no script hides a standard module."""

import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("functorch_kit", "experiments", "tests")
MOST_LINES = 400
MEDIAN_LINES = 150
NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "common", "misc", "contrib"}
# Written apart, or this file would report itself.
LEFTOVERS = ("TO" + "DO", "FIX" + "ME", "X" + "XX")


def _python_files(root: Path, folders: Iterable[str] = FOLDERS) -> list[Path]:
    return [file for folder in folders for file in sorted((root / folder).rglob("*.py"))]


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()


def long_files(root: Path) -> list[str]:
    """Files of more than 400 lines."""
    return [
        f"{file.relative_to(root)} has {count} lines, {MOST_LINES} at most: split it"
        for file in _python_files(root)
        if (count := len(_lines(file))) > MOST_LINES
    ]


def empty_names(root: Path) -> list[str]:
    """Files and folders whose name says nothing of what is in them."""
    found: list[str] = []
    for file in _python_files(root):
        path = file.relative_to(root)
        for part in [*path.parts[:-1], path.stem]:
            # test_utils and _utils say as little as utils does.
            if part.removeprefix("test_").strip("_") in NAMES_THAT_SAY_NOTHING:
                found.append(f"{path}: '{part}' says nothing: name what is in it")
    return found


def shadowed_modules(root: Path) -> list[str]:
    """Scripts that hide a standard module: a script's folder comes first on the path."""
    found: list[str] = []
    for file in _python_files(root, ["experiments"]):
        name = file.parent.name if file.stem == "__init__" else file.stem
        if name in sys.stdlib_module_names:
            found.append(f"{file.relative_to(root)} hides the standard module '{name}'")
    return found


def leftovers(root: Path) -> list[str]:
    """Notes to oneself that were meant to be gone by now."""
    return [
        f"{file.relative_to(root)}:{number}: {word}"
        for file in _python_files(root)
        for number, line in enumerate(_lines(file), 1)
        for word in LEFTOVERS
        if word in line
    ]


def _plant(root: Path, name: str, text: str = "") -> Path:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text, encoding="utf-8")
    return root


def test_no_file_is_longer_than_400_lines():
    assert long_files(ROOT) == []


def test_the_median_file_of_the_package_is_short():
    lengths = sorted(len(_lines(file)) for file in _python_files(ROOT, ["functorch_kit"]))
    assert lengths[len(lengths) // 2] < MEDIAN_LINES


def test_every_file_name_says_what_is_in_it():
    assert empty_names(ROOT) == []


def test_no_script_hides_a_standard_module():
    assert shadowed_modules(ROOT) == []


def test_no_leftover_notes():
    assert leftovers(ROOT) == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_file_of_401_lines_is_found_and_one_of_400_is_not(tmp_path: Path, folder: str):
    _plant(tmp_path, f"{folder}/nn/fits.py", "x = 1\n" * 400)
    _plant(tmp_path, f"{folder}/nn/long.py", "x = 1\n" * 401)
    (found,) = long_files(tmp_path)
    assert found.startswith(f"{folder}/nn/long.py has 401 lines")


@pytest.mark.parametrize(
    "name",
    [
        "functorch_kit/utils.py",
        "functorch_kit/nn/_helpers.py",
        "functorch_kit/common/shapes.py",
        "tests/test_misc.py",
        "experiments/benchmarks/util.py",
    ],
)
def test_a_name_that_says_nothing_is_found(tmp_path: Path, name: str):
    (found,) = empty_names(_plant(tmp_path, name))
    assert found.startswith(name)


def test_a_name_that_only_contains_such_a_word_is_left_alone(tmp_path: Path):
    assert empty_names(_plant(tmp_path, "functorch_kit/common_subexpressions.py")) == []


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("experiments/inspect.py", "inspect"),
        ("experiments/benchmarks/profile.py", "profile"),
        ("experiments/types/__init__.py", "types"),
    ],
)
def test_a_script_that_hides_a_standard_module_is_found(tmp_path: Path, name: str, module: str):
    assert shadowed_modules(_plant(tmp_path, name)) == [
        f"{name} hides the standard module '{module}'"
    ]


def test_a_module_of_the_package_may_bear_the_name_of_a_standard_one(tmp_path: Path):
    assert shadowed_modules(_plant(tmp_path, "functorch_kit/types.py")) == []


@pytest.mark.parametrize("word", LEFTOVERS)
def test_a_leftover_note_is_found(tmp_path: Path, word: str):
    _plant(tmp_path, "functorch_kit/nn.py", f"x = 1\n# {word}: later\n")
    assert leftovers(tmp_path) == [f"functorch_kit/nn.py:2: {word}"]
