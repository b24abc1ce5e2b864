"""Where a run took place: versions, devices, flags and the revision of the code."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("jax", "jaxlib", "numpy", "optax", "flax", "orbax-checkpoint", "functorch_kit")
# The settings that change numbers or speed. Folders are left out: they hold user names.
_SETTINGS = (
    "jax_platforms",
    "jax_enable_x64",
    "jax_disable_jit",
    "jax_debug_nans",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_numpy_dtype_promotion",
    "jax_numpy_rank_promotion",
    "jax_num_cpu_devices",
)
_GIT_SECONDS = 2.0


def environment() -> dict[str, Any]:
    """Versions, devices, flags and code revision; neither user name nor host name.

    Returns:
        JSON-ready dict: ``python``, ``versions``, ``devices`` (platform, kind, count), ``cpu``
        (model, cores), ``system``, ``xla_flags``, ``jax_settings``, and ``git`` (revision, dirty)
        where the working directory is a checkout.

    Example:
        >>> found = environment()
        >>> {"functorch_kit", "jax", "jaxlib", "numpy"} <= set(found["versions"])
        True
        >>> found["devices"]["count"] >= 1
        True
    """
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "versions": _versions(),
        "devices": _devices(),
        "cpu": {"model": _cpu_model(), "cores": os.cpu_count()},
        "system": f"{platform.system()} {platform.machine()}",
        "xla_flags": _without_home(os.environ.get("XLA_FLAGS", "")),
        "jax_settings": _settings(),
    }
    git = git_revision(Path.cwd())
    if git is not None:
        found["git"] = git
    return found


def git_revision(folder: Path) -> dict[str, Any] | None:
    """The commit that a folder's checkout stands on.

    Args:
        folder: a folder inside the checkout.

    Returns:
        ``{"revision": str, "dirty": bool}``, dirty if a tracked file differs; None where there is
        no checkout, no commit, no git, or no answer within two seconds.

    Example:
        >>> git_revision(Path("/")) is None
        True
    """
    try:
        # One call for both answers, and no lock: the user may be working in the same checkout.
        answer = subprocess.run(
            ["git", "status", "--porcelain=v2", "--branch", "--untracked-files=no"],
            cwd=folder,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    if answer.returncode != 0:
        return None
    lines = answer.stdout.splitlines()
    oid = next((line.split()[-1] for line in lines if line.startswith("# branch.oid ")), "")
    if not oid or oid == "(initial)":
        return None
    return {"revision": oid, "dirty": any(line and not line.startswith("#") for line in lines)}


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if "functorch_kit" not in found:  # on the path, but not installed
        from functorch_kit import __version__

        found["functorch_kit"] = __version__
    return found


def _devices() -> dict[str, Any]:
    import jax

    devices = jax.devices()
    return {
        "platform": devices[0].platform,
        "kind": devices[0].device_kind,
        "count": len(devices),
        "processes": jax.process_count(),
    }


def _settings() -> dict[str, Any]:
    import jax

    values = {name: getattr(jax.config, name, None) for name in _SETTINGS}
    return {name: value for name, value in values.items() if value is not None}


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _without_home(text: str) -> str:
    home = os.path.expanduser("~")
    return text.replace(home, "~") if len(home) > 1 else text
