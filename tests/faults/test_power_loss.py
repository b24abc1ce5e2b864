"""F3: what the kernel is asked for, in the order in which it is asked."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

WRITER = """
import sys
import numpy as np
from functorch_kit.checkpoint import Keep, Store
with Store(sys.argv[1], Keep(latest=2)) as store:
    for step in range(int(sys.argv[2])):
        # The last one replaces a step that is there.
        store.save(min(step, int(sys.argv[2]) - 2), {"x": np.full(1000, step)}, score=1.0)
"""
CALL = re.compile(r"^(?:\d+ +)?(\w+)\((.*)\) += (-?\d+)")
RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)$")
UNFINISHED = re.compile(r"^(\d+) +(.*) <unfinished \.\.\.>$")


def calls(text: str) -> list[tuple[str, str]]:
    """Successful calls and their arguments, in the order of their end; halves put together."""
    begun: dict[str, str] = {}
    found: list[tuple[str, str]] = []
    for line in text.splitlines():
        if match := UNFINISHED.match(line):
            begun[match[1]] = match[2]
            continue
        if match := RESUMED.match(line):
            line = f"{match[1]} {begun.pop(match[1])}{match[3]}"
        if (match := CALL.match(line)) and int(match[3]) >= 0:
            found.append((match[1], match[2]))
    return found


def check(folder: Path, recorded: list[tuple[str, str]]) -> int:
    """Everything under a name is synced before it gets that name, and then the name is.

    Returns:
        How many files were published.
    """
    dirty: dict[str, bool] = {}  # written or made since it was last synced
    published, files = 0, 0
    unsynced_names = False
    for name, arguments in recorded:
        descriptor = re.match(r"\d+<([^>]*)>", arguments)
        paths = re.findall(r'"([^"]*)"', arguments)
        if name in ("fsync", "fdatasync") and descriptor:
            dirty[descriptor[1]] = False
            unsynced_names &= descriptor[1] != str(folder)
        elif name in ("write", "pwrite64", "writev") and descriptor:
            assert (
                f"{folder}/.tmp-" in descriptor[1]
                or str(folder) not in descriptor[1]
                or (descriptor[1].endswith("/.lock"))
            ), "a published file is never written to"
            dirty[descriptor[1]] = True
        elif name in ("openat", "mkdir") and ("O_CREAT" in arguments or name == "mkdir"):
            dirty[paths[-1]] = True
            dirty[str(Path(paths[-1]).parent)] = True
        elif name.startswith("rename") and re.fullmatch(rf"{folder}/\d+", paths[-1]):
            source = paths[0]
            inside = [path for path in dirty if path.startswith(f"{source}/")]
            assert len(inside) == 2
            assert not any(dirty[path] for path in [source, *inside])
            published, files = published + 1, files + len(inside)
            unsynced_names = True
        elif name in ("unlink", "unlinkat", "rmdir"):
            assert not unsynced_names, "nothing is removed before the new name is on the disk"
    assert not unsynced_names
    return files


@pytest.fixture
def recorded(tmp_path: Path):
    """``recorded(steps)``: the folder, and what its writer asked the kernel for."""

    def record(steps: int) -> tuple[Path, list[tuple[str, str]]]:
        if shutil.which("strace") is None:
            pytest.skip("no strace here; tests/checkpoint/test_crash.py watches os.fsync itself")
        folder, log = tmp_path / "new" / "checkpoints", tmp_path / "log"
        traced = "fsync,fdatasync,write,pwrite64,writev,openat,mkdir,rename,renameat,renameat2"
        command = ["strace", "-f", "-y", "-qq", "-o", str(log), "-s", "0"]
        command += ["-e", f"trace={traced},unlink,unlinkat,rmdir", "-e", "signal=none"]
        command += [sys.executable, "-c", WRITER, str(folder), str(steps)]
        done = subprocess.run(
            command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300
        )
        if "ptrace" in done.stderr and not folder.exists():
            pytest.skip("strace may not watch processes here")
        assert done.returncode == 0, done.stderr
        return folder, calls(log.read_text())

    return record


def test_every_published_file_was_synced_before_and_its_name_after(recorded):
    assert check(*recorded(4)) == 8


@pytest.mark.soak
def test_every_file_of_two_hundred_saves_was_synced(recorded, table):
    with table.row("F3", "saves under strace: the order of write, fsync and rename") as row:
        row.count = 200
        files = check(*recorded(row.count))
        row.result = (
            f"all {files} files and their folders synced before the rename, the rename synced"
            " before anything is removed"
        )
