"""The conditions under which the tests run are the ones that conftest.py promises."""

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from jax.core import Tracer
from jax.dtypes import TypePromotionError

from functorch_kit.types import Model, path_name

pytestmark = pytest.mark.smoke


def _import_checked(folder: Path, source: str) -> Any:
    """Load a module as the import hook of conftest.py loads those of the package."""
    from functorch_kit import errors

    hook: Any = errors.__loader__
    file = folder / "planted.py"
    file.write_text(source, encoding="utf-8")
    loader = type(hook)("planted", str(file), typechecker=hook._typechecker)
    module = ModuleType("planted")
    loader.exec_module(module)
    return module


def test_a_wrong_type_in_a_call_of_the_package_is_an_error():
    with pytest.raises(jaxtyping.TypeCheckError, match="path"):
        path_name("kernel")  # pyright: ignore[reportArgumentType]


def test_an_int_is_welcome_where_a_float_is_expected(tmp_path: Path):
    planted = _import_checked(tmp_path, "def half(x: float) -> float:\n    return x / 2")
    assert planted.half(1) == 0.5
    with pytest.raises(jaxtyping.TypeCheckError):
        planted.half("1")


def test_a_method_may_return_self(tmp_path: Path):
    source = "from typing import Self\nclass C:\n    def me(self) -> Self:\n        return self"
    thing = _import_checked(tmp_path, source).C()
    assert thing.me() is thing


def test_a_named_tuple_survives_the_type_checker():
    model = Model(init=lambda: ({}, ()), apply=lambda: (None, ()))
    assert isinstance(model, tuple)
    assert Model._fields == ("init", "apply")


def test_there_are_four_devices():
    assert jax.device_count() == 4


def test_a_silent_promotion_of_ranks_is_an_error():
    with pytest.raises(ValueError, match="rank_promotion"):
        _ = jnp.ones((2, 3)) + jnp.ones(3)


def test_a_silent_promotion_of_dtypes_is_an_error():
    with pytest.raises(TypePromotionError, match="promotion"):
        _ = jnp.ones(2, jnp.float32) + jnp.ones(2, jnp.int32)


def test_standard_promotion_lifts_the_strictness_of_dtypes(standard_promotion: None):
    assert (jnp.ones(2, jnp.float32) + jnp.ones(2, jnp.int32)).dtype == jnp.float32


def test_x64_gives_float64(x64: None):
    assert jnp.asarray(np.ones(2)).dtype == jnp.float64


def test_without_x64_there_is_none():
    assert jnp.asarray(np.ones(2)).dtype == jnp.float32


def test_maybe_jit_runs_once_traced_and_once_not(
    maybe_jit: Callable[..., Any], request: pytest.FixtureRequest
):
    seen: list[bool] = []

    def double(x: jax.Array, n: int) -> jax.Array:
        seen.append(isinstance(x, Tracer))
        return x * n

    assert maybe_jit(double, static_argnames="n")(jnp.ones(2), n=2).tolist() == [2.0, 2.0]
    assert seen == ["jitted" in request.node.name]


def test_nothing_is_cached_in_the_users_home(script_environment: dict[str, str]):
    root = Path(__file__).parents[2]
    for name in ("XDG_CACHE_HOME", "MPLCONFIGDIR"):
        assert Path(os.environ[name]).is_relative_to(root)
        assert script_environment[name] == os.environ[name]
    assert "FUNCTORCH_KIT_CACHE" not in script_environment
