"""Every public name says what it is and shows it in an executed example.

The rule: a public function, or a class with behaviour, has a docstring with a doctest (``>>>``).
Exempt from the example, not from the docstring: exceptions, and records (dataclasses and
NamedTuples), which the functions that return them show. Exempt altogether: constants, type aliases
and ready-made values such as an activation, for which Python keeps no docstring.
"""

import dataclasses
import inspect
from types import ModuleType
from typing import Any

import pytest

import functorch_kit

NAMESPACES = sorted(functorch_kit._NAMESPACES)
FUNCTIONS = sorted(functorch_kit._FUNCTIONS)


def public_names(module: ModuleType) -> list[str]:
    """``__all__``, or, in a module without one, the public functions and classes it defines."""
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return list(listed)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def _is_exception_or_record(value: Any) -> bool:
    return inspect.isclass(value) and (
        issubclass(value, BaseException)
        or dataclasses.is_dataclass(value)
        or (issubclass(value, tuple) and hasattr(value, "_fields"))
    )


def complaint(name: str, value: Any) -> str | None:
    """What is missing from the documentation of one public name, or None."""
    # Functions that jax.jit, functools or the type checker wrapped still lead to what was written.
    written = inspect.unwrap(value) if callable(value) else value
    if not (inspect.isroutine(written) or inspect.isclass(written)):
        return None
    text = vars(written).get("__doc__") if inspect.isclass(written) else written.__doc__
    # A record without a docstring of its own gets its signature from Python.
    if not text or text.startswith(f"{written.__name__}("):
        return f"{name} has no docstring"
    if ">>>" not in text and not _is_exception_or_record(written):
        return f"{name} has no executed example (>>>)"
    return None


def undocumented(module: ModuleType) -> list[str]:
    """Complaints about a module and its public names."""
    found = [] if module.__doc__ else [f"{module.__name__} has no docstring"]
    for name in public_names(module):
        if (missing := complaint(f"{module.__name__}.{name}", getattr(module, name))) is not None:
            found.append(missing)
    return found


@pytest.mark.smoke
@pytest.mark.parametrize("namespace", NAMESPACES)
def test_every_public_name_has_a_docstring_with_an_example(namespace: str):
    assert undocumented(getattr(functorch_kit, namespace)) == []


@pytest.mark.smoke
@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_function_at_the_front_door_has_an_example(function: str):
    assert complaint(function, getattr(functorch_kit, function)) is None


def test_the_front_door_lists_what_it_opens():
    listed = {"__version__", *functorch_kit._NAMESPACES, *functorch_kit._FUNCTIONS}
    assert sorted(functorch_kit.__all__) == sorted(listed)
    assert dir(functorch_kit) == sorted(functorch_kit.__all__)


def test_an_unknown_name_at_the_front_door_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = functorch_kit.trian


def _plant(source: str, name: str = "planted") -> ModuleType:
    module = ModuleType(name)
    exec(compile(source, name, "exec"), vars(module))
    return module


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(): pass", "planted.f has no docstring"),
        ("def f(): 'Adds.'", "planted.f has no executed example (>>>)"),
        ("import jax\n@jax.jit\ndef f(): 'Adds.'", "planted.f has no executed example (>>>)"),
        ("class C: 'A store.'", "planted.C has no executed example (>>>)"),
        ("class B:\n '''>>> 1'''\nclass C(B): pass", "planted.C has no docstring"),
        ("class E(ValueError): pass", "planted.E has no docstring"),
        (
            "from typing import NamedTuple\nclass R(NamedTuple):\n x: int",
            "planted.R has no docstring",
        ),
        (
            "from dataclasses import dataclass\n@dataclass\nclass R:\n x: int",
            "planted.R has no docstring",
        ),
    ],
)
def test_a_missing_docstring_or_example_is_found(source: str, expected: str):
    assert undocumented(_plant(f"'Planted.'\n{source}")) == [expected]


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n '''>>> f()'''",
        "def _f(): pass",
        "__all__ = []\ndef f(): pass",
        "class E(ValueError): 'Raised.'",
        "from typing import NamedTuple\nclass R(NamedTuple):\n 'A row.'\n x: int",
        "LIMIT = 3",
        "Params = dict[str, int]",
        "from math import sqrt",
    ],
)
def test_what_the_rule_exempts_is_left_alone(source: str):
    assert undocumented(_plant(f"'Planted.'\n{source}")) == []


def test_a_name_that_is_listed_is_read_wherever_it_was_defined():
    module = _plant("'Planted.'\nfrom textwrap import indent\n__all__ = ['indent']")
    assert undocumented(module) == ["planted.indent has no executed example (>>>)"]


def test_a_module_without_a_docstring_is_found():
    assert undocumented(_plant("x = 1")) == ["planted has no docstring"]
