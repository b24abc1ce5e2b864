"""What a figure was measured on: machine, versions, and the ceiling that the machine has today."""

from __future__ import annotations

import datetime
import functools
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

# Both run in the environment that they ask about, and import nothing of it.
_VERSIONS = """
import json, platform
from importlib import metadata
names = %r
found = {"python": platform.python_version()}
for name in names:
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""
_MISSING = """
import importlib.util, json
print(json.dumps([name for name in %r if importlib.util.find_spec(name) is None]))
"""
# In a process of its own: two thread pools in one process disturb each other.
_CEILING = """
import json, jax, functorch_kit
from functorch_kit.program.timing import matmul_ceiling
device = jax.devices()[0]
print(json.dumps({
    "ceiling_gflops": matmul_ceiling(),
    "device": f"{device.platform} {device.device_kind}",
    "functorch_kit": functorch_kit.__version__,
}))
"""
_DISTRIBUTIONS = (
    *("jax", "jaxlib", "numpy", "optax", "orbax-checkpoint", "scikit-learn", "tensorboardX"),
    *("keras", "flax", "equinox", "torch", "lightning"),
    *("opacus", "curvlinops-for-pytorch", "neural-tangents"),
)


def head(ours: str, peers: str, *, quick: bool) -> dict[str, Any]:
    """The head of a result file.

    Args:
        ours: our interpreter.
        peers: the peers' interpreter.
        quick: whether the counts are too small for the figures to mean anything.
    """
    measured = ceiling(ours)
    own_version = {"functorch_kit": measured["functorch_kit"]}
    return {
        "command": shlex.join(["python", *_shortened(sys.argv)]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "machine": {
            "cpu": _cpu_model(),
            "cores": _cores(),
            "system": f"{platform.system()} {platform.machine()}",
            "device": measured["device"],
            "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        },
        "versions": {"ours": own_version | versions(ours), "peers": versions(peers)},
        "ceiling": "GFLOP/s of a float32 matrix product of 2048 x 2048, before and after",
        "ceiling_gflops": measured["ceiling_gflops"],
        "interval": "low and high hold the median ratio with a probability of 95 % or more",
    }


def ceiling(python: str) -> dict[str, Any]:
    """The rate of the operation that this machine is best at, now."""
    return _ask(python, _CEILING, PYTHONPATH=str(ROOT))


@functools.cache
def versions(python: str) -> dict[str, str]:
    """Versions in an environment, of what the figures may depend on."""
    return _ask(python, _VERSIONS % (_DISTRIBUTIONS,))


def missing_modules(python: str, modules: Sequence[str]) -> list[str]:
    """Those of ``modules`` (top-level names) that an environment does not have."""
    return _missing_modules(python, tuple(modules)) if modules else []


@functools.cache
def _missing_modules(python: str, modules: tuple[str, ...]) -> list[str]:
    return _ask(python, _MISSING % (modules,))


def _ask(python: str, code: str, **environment: str) -> Any:
    try:
        answer = subprocess.run(
            # -P: a module of this folder is none of the environment's.
            [python, "-P", "-c", code],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise SystemExit(f"{python} cannot be started: {error.strerror}") from None
    if answer.returncode:
        raise SystemExit(f"{python} does not answer: {(answer.stderr.splitlines() or [''])[-1]}")
    return json.loads(answer.stdout.splitlines()[-1])


def _shortened(arguments: Sequence[str]) -> list[str]:
    """The command line as seen from the repository's root; of paths elsewhere only the name."""
    inside = [argument.replace(f"{ROOT}{os.sep}", "") for argument in arguments]
    return [Path(argument).name if os.path.isabs(argument) else argument for argument in inside]


def _cores() -> int:
    """How many cores this process may use, which in a container are not all there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
