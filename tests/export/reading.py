"""Read files one by one in a process of its own, and say what became of each.

``python -m tests.export.reading <folder> <cases.json>`` prints a line of JSON for each case: what
it ended as, how long it took, how much memory it took at most, and what it did that a reader must
not do. ``resource`` limits nothing here: a reader that needs a limit to stop is one that fails.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from functorch_kit import data, export, safetensors
from functorch_kit.errors import UserError

ROOT = Path(__file__).parents[2]
_STATUS = Path("/proc/self/status")
_PEAK = Path("/proc/self/clear_refs")
_NEVER = (
    "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pickle.find_class",
    "socket.connect", "shutil.rmtree", "os.remove", "os.rename",
)  # fmt: skip
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

LETTERS = data.Characters("abc")
INPUTS = {
    "table": data.Inputs("table", (2,), "float32", columns=("a", "b")),
    "text": data.Inputs("text", (4,), "int32"),
    "npy": data.Inputs("array", (2, 3), "float32"),
    "image": data.Inputs("image", (4, 4, 3), "uint8"),
}


def read(kind: str, path: Path) -> None:
    """What a user's script would do with such a file."""
    if kind == "tensors":
        for array in safetensors.read(path).values():
            np.asarray(array).sum(dtype=np.float64)
    elif kind == "artifact":
        export.load(path)
    else:
        words = LETTERS if kind == "text" else None
        for _ in export.read_records(path, INPUTS[kind], words):
            pass


class Watch:
    """What a reader does behind our back."""

    def __init__(self, folder: Path) -> None:
        allowed = (folder, ROOT, Path(sys.prefix), Path(sys.base_prefix), Path("/proc/self"))
        self.allowed = [os.path.realpath(path) for path in allowed]
        self.done: list[str] = []
        self.is_on = False
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_on:
            return
        if event in _NEVER:
            self.done.append(f"{event} {arguments!r:.80}")
        if event == "open" and isinstance(arguments[0], str | bytes):
            path, flags = os.fsdecode(arguments[0]), arguments[2] or 0
            is_link = flags & os.O_NOFOLLOW and os.path.islink(path)  # which the system refuses
            target = os.path.realpath(path)
            is_inside = any(
                target == each or target.startswith(each + os.sep) for each in self.allowed
            )
            if flags & _WRITES or not (is_inside or is_link):
                self.done.append(f"open {path!r:.80}")


def _memory(name: str) -> int:
    if not _STATUS.exists():
        return 0
    line = next(each for each in _STATUS.read_text().splitlines() if each.startswith(name))
    return int(line.split()[1]) << 10


class Reached(BaseException):
    """Bad bytes have reached the deserializer; no ``except Exception`` hides it."""


def _deserialized(content: Any) -> Any:
    raise Reached


def main(folder: Path, cases: Path) -> None:
    jax.export.deserialize = _deserialized
    watch = Watch(folder)
    for name, kind, path in json.loads(cases.read_text()):
        watch.done.clear()
        _PEAK.write_text("5") if _PEAK.exists() else None
        before, began = _memory("VmRSS"), time.perf_counter()
        watch.is_on = True
        try:
            read(kind, Path(path))
            ended = "read"
        except UserError as error:
            is_line = str(error).isprintable() and len(str(error)) < 1000
            ended = f"refused: {error}" if is_line else f"refused in no line: {str(error)!r:.200}"
        except BaseException as error:
            ended = f"{type(error).__name__}: {error}"[:300]
        finally:
            watch.is_on = False
        row = {
            "name": name,
            "ended": ended,
            "seconds": time.perf_counter() - began,
            "memory": _memory("VmHWM") - before,
            "did": list(watch.done),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
