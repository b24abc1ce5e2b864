"""Fixtures for all tests; the settings (strict promotion, devices …) are in ../conftest.py."""

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from functorch_kit import program
from functorch_kit.program import contestant


def _eager(fn: Callable[..., Any], **_: Any) -> Callable[..., Any]:
    return fn


def _signals() -> tuple[Any, ...]:
    woken = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(woken)
    return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), woken


@pytest.fixture(autouse=True)
def what_signals_do_stays_as_it_was() -> Iterator[None]:
    """A handler that a test leaves behind ends the whole worker when a later test sends a signal.

    Where the tests were started in the background, SIGINT is ignored; here it means what it means
    to a user.
    """
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    before = _signals()
    yield
    after = _signals()
    if ignored:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert after == before


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


@pytest.fixture(scope="module")
def compiled_quickly() -> Iterator[None]:
    """Programs of this module are compiled without LLVM's optimisations, in half the time.

    For tests that hold what many small programs compute to a tolerance. Not where bits, speed,
    memory or the compiler's text count, and not for programs that run for long.
    """
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()  # nobody else meets what was compiled so


@pytest.fixture(scope="module")
def compiled_once() -> Iterator[None]:
    """The toolkit's own cache is on, as it is for users, for tests of the same few programs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FUNCTORCH_KIT_CACHE", raising=False)
        program.use_cache()
        yield
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def short_samples() -> Iterator[None]:
    """``program.compare`` times a variant for a tenth as long: for tests of all but the figures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contestant, "_SAMPLE_SECONDS", 0.01)
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
