"""The conditions under which every test and every doctest runs; fixtures are in tests/conftest.py.

It stands in the root so that ``pytest functorch_kit/nn`` gets the same conditions as ``pytest``.
"""

import ctypes
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import jaxtyping

# Before anything imports the package: shapes and types in signatures are checked on every call.
# An int is welcome where a float is expected, as type checkers have it; `Self` is not checked,
# because the hook decorates methods before their class exists. (jaxtyping evaluates the string.)
_TYPE_CHECKER = (
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True,"
    " hint_overrides=beartype.FrozenDict({__import__('typing').Self: object})))"
)
jaxtyping.install_import_hook("functorch_kit", _TYPE_CHECKER)

# Nothing is written in the user's home, neither here nor in the scripts that tests start.
_CACHE = Path(__file__).parent / ".cache" / "tests"
os.environ["XDG_CACHE_HOME"] = str(_CACHE)
os.environ["MPLCONFIGDIR"] = str(_CACHE / "matplotlib")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# In this process a compilation is a compilation, whatever ran before. A test of the cache deletes
# the variable (monkeypatch.delenv), a script started with `script_environment` has it deleted.
os.environ.setdefault("FUNCTORCH_KIT_CACHE", "off")

import jax  # noqa: E402  (reads the variables above)
import pytest  # noqa: E402

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Doctests are cheap and touch every public name: all of them are smoke tests."""
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            item.add_marker(pytest.mark.smoke)


@pytest.fixture(scope="module", autouse=True)
def compiled_programs_do_not_pile_up() -> Iterator[None]:
    """JAX keeps every program that a process compiled: some gigabytes by the end of the tests."""
    yield
    if _resident_bytes() > 2 << 30:
        jax.clear_caches()
        gc.collect()
        # The C library keeps what was freed, unless it is asked.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _resident_bytes() -> int:
    """Of this process; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(autouse=True)
def doctests_run_as_typed(request: pytest.FixtureRequest) -> Iterator[None]:
    """An example shows what a user would type, so it runs under JAX's own dtype promotion."""
    if isinstance(request.node, pytest.DoctestItem):
        with jax.numpy_dtype_promotion("standard"):
            yield
    else:
        yield
