"""Fixtures for all tests; the settings (strict promotion, devices …) are in ../conftest.py."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import pytest


def _eager(fn: Callable[..., Any], **_: Any) -> Callable[..., Any]:
    return fn


@pytest.fixture(params=[_eager, jax.jit], ids=["eager", "jitted"])
def maybe_jit(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """``maybe_jit(fn)``: the test runs twice, with ``fn`` as it is and under ``jax.jit``.

    Options of ``jax.jit`` (``static_argnames`` …) may be given and mean nothing to the plain run.
    """
    return request.param


@pytest.fixture
def x64() -> Iterator[None]:
    """Float64 for this test: proofs that compare two computations need it."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def standard_promotion() -> Iterator[None]:
    """JAX's default dtype promotion for this test.

    Only where optax runs: on jax 0.10 its ``adamw`` multiplies a weak integer with a float and
    raises under the strict promotion that our own code is held to. Around a few lines,
    ``with jax.numpy_dtype_promotion("standard"):`` does the same.
    """
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def script_environment() -> dict[str, str]:
    """Environment variables for a script in a process of its own, as a user would start it.

    The compilation cache is on, in a folder that all such processes share, so that a second one
    need not compile what the first did; nothing is written in the user's home.
    """
    environment = dict(os.environ)
    environment.pop("FUNCTORCH_KIT_CACHE", None)
    return environment
