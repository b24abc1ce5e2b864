"""The persistent compilation cache: a second process need not compile what the first did."""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jax
from jaxlib.version import __version__ as jaxlib_version

_HIT = "/jax/compilation_cache/cache_hits"
_COMPILED = "/jax/core/compile/backend_compile_duration"


def use_cache(folder: Path | None = None) -> Path | None:
    """Keep compiled programs on disk, for this process and those after it.

    A folder that is configured already (``jax_compilation_cache_dir``, also from the environment)
    stays as it is. The environment variable ``FUNCTORCH_KIT_CACHE`` is ``off`` for no cache, or a
    folder in place of the default.

    Args:
        folder: where to keep programs. By default a folder of this toolkit under
            ``$XDG_CACHE_HOME`` or ``~/.cache``, with one place for each jaxlib and kind of CPU,
            for a program compiled for one CPU may not run on another that shares the home.

    Returns:
        The folder in use, or None where there is no cache: switched off, or not writable.

    Example:
        >>> import os, jax
        >>> before = os.environ.get("FUNCTORCH_KIT_CACHE")
        >>> os.environ["FUNCTORCH_KIT_CACHE"] = "off"
        >>> print(use_cache())
        None
        >>> del os.environ["FUNCTORCH_KIT_CACHE"]
        >>> if before is not None: os.environ["FUNCTORCH_KIT_CACHE"] = before
    """
    setting = os.environ.get("FUNCTORCH_KIT_CACHE", "")
    if setting.lower() == "off":
        return None
    configured: str | None = jax.config.values["jax_compilation_cache_dir"]
    if configured:
        return Path(configured)
    try:
        chosen = folder or (Path(setting).expanduser() if setting else _default_folder())
        chosen.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=chosen):  # permission bits do not tell of read-only disks
            pass
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return None
    jax.config.update("jax_compilation_cache_dir", str(chosen))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    # JAX opens one cache in a process and keeps it: let go of any that was open somewhere else.
    from jax.experimental.compilation_cache import compilation_cache

    compilation_cache.reset_cache()
    return chosen


def _default_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG rules: a relative path is to be ignored.
    cache = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return cache / "functorch_kit" / "xla" / f"{jaxlib_version}-{_fingerprint()}"


def _fingerprint() -> str:
    """Twelve hex digits that differ between machines whose compiled code is not interchangeable."""
    described = [platform.system(), platform.machine(), platform.processor()]
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    for field in ("flags", "Features", "model name"):  # x86, Arm, both
        described += [line for line in lines if line.startswith(field)][:1]
    return hashlib.sha256("\n".join(described).encode()).hexdigest()[:12]


@dataclass
class Compilations:
    """What JAX compiled while it was watched.

    Attributes:
        seconds: time in XLA, reading from the persistent cache included.
        hits: programs that came out of the persistent cache.

    Example:
        >>> Compilations().hits
        0
    """

    seconds: float = 0.0
    hits: int = 0


@contextmanager
def watch_compilations() -> Iterator[Compilations]:
    """Count what this thread compiles inside the ``with`` block.

    Example:
        >>> import jax
        >>> with watch_compilations() as seen:
        ...     _ = jax.jit(lambda x: x + 1).lower(1.0).compile()
        >>> seen.seconds > 0
        True
    """
    seen = Compilations()
    thread = threading.get_ident()  # a checkpoint's thread, say, may compile at the same time

    def on_event(event: str, **_: object) -> None:
        if event == _HIT and threading.get_ident() == thread:
            seen.hits += 1

    def on_duration(event: str, duration_secs: float, **_: object) -> None:
        if event == _COMPILED and threading.get_ident() == thread:
            seen.seconds += duration_secs

    jax.monitoring.register_event_listener(on_event)
    jax.monitoring.register_event_duration_secs_listener(on_duration)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_listener(on_event)
        jax.monitoring.unregister_event_duration_listener(on_duration)


@contextmanager
def compiling_into(folder: Path | None) -> Iterator[None]:
    """Inside the ``with`` block, compile with another persistent cache, or with none.

    Args:
        folder: of the cache, which may be empty; None for no cache at all.

    Example:
        >>> import jax
        >>> with tempfile.TemporaryDirectory() as folder, compiling_into(Path(folder)):
        ...     _ = jax.jit(lambda x: x + 1).lower(1.0).compile()
        ...     len(list(Path(folder).iterdir())) > 0
        True
    """
    from jax.experimental.compilation_cache import compilation_cache

    values: dict[str, object] = {
        "jax_compilation_cache_dir": None if folder is None else str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before: dict[str, object] = {name: jax.config.values[name] for name in values}

    def use(settings: dict[str, object]) -> None:
        for name, value in settings.items():
            jax.config.update(name, value)
        # JAX opens one cache in a process and keeps it: let go of any that was open elsewhere.
        compilation_cache.reset_cache()

    use(values)
    try:
        yield
    finally:
        use(before)
