"""Every setting of data in files arrives; paths are plain; what a run says of its input."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from functorch_kit.config import (
    GROUPS,
    MLP,
    Config,
    ConfigError,
    GPTNano,
    Train,
    build,
    from_dict,
    slots,
    to_dict,
)
from functorch_kit.data import DataError

# optax runs in some of these.
pytestmark = pytest.mark.usefixtures("standard_promotion", "compiled_quickly")

RANDOM = np.random.default_rng(0)
IN_FILES = ("idx", "cifar", "images", "npy", "table", "tokens")
ALL = [
    (name.removeprefix("data."), slot.choice.removeprefix("data="))
    for name, places in slots().items()
    for slot in places
    if slot.choice.removeprefix("data=") in IN_FILES and name != "data.path"
]
OTHER = {
    "validation": 0.3, "test": 0.4, "target": "a", "check": "skip", "dtype": "uint32",
    "size": [6, 5], "channels": 1, "vocabulary": 999, "processes": 2,
}  # fmt: skip


def _idx(array: np.ndarray) -> bytes:
    sizes = b"".join(struct.pack(">I", n) for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A small set of each kind."""
    image = pytest.importorskip("PIL.Image")
    root = tmp_path_factory.mktemp("sets")
    for name in IN_FILES:
        (root / name).mkdir()
    x = RANDOM.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
    y = (np.arange(60) % 3).astype(np.uint8)
    (root / "idx" / "train-images-idx3-ubyte").write_bytes(_idx(x[:, :7, :6, 0].copy()))
    (root / "idx" / "train-labels-idx1-ubyte").write_bytes(_idx(y))
    rows = [bytes([label]) + i.transpose(2, 0, 1).tobytes() for i, label in zip(x, y, strict=True)]
    (root / "cifar" / "data_batch_1.bin").write_bytes(b"".join(rows))
    for number in range(60):
        folder = root / "images" / f"class_{y[number]}"
        folder.mkdir(exist_ok=True)
        image.fromarray(x[number, :9, :8]).save(folder / f"{number}.png")
    np.save(root / "npy" / "x.npy", RANDOM.normal(size=(60, 4)).astype(np.float32))
    np.save(root / "npy" / "y.npy", y)
    lines = "".join(f"{i},{i * 7 % 11},{i % 3}\n" for i in range(60))
    (root / "table" / "t.csv").write_text(f"a,b,c\n{lines}")
    np.repeat(RANDOM.integers(0, 90, 2000), 2).astype("<u2").tofile(root / "tokens" / "all.bin")
    files = {"table": "t.csv", "tokens": "all.bin"}
    return {name: str(root / name / files.get(name, "")) for name in IN_FILES}


def job(choice: str, path: str) -> Config:
    section = GROUPS["data"][choice](path=path)
    if choice == "images":
        section.size = (8, 8)
    net: Any = MLP(hidden=(4,))
    if choice == "tokens":
        net = GPTNano(layers=1, heads=1, width=2)
    return Config(model=net, data=section, train=Train(batch_size=8))


def fingerprint(config: Config) -> tuple[Any, ...]:
    experiment = build(config)
    batches = [experiment.data.train(3), *([experiment.data.validation(0)])]
    leaves = [leaf for batch in batches for leaf in jax.tree.leaves(batch)]
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(leaf).tobytes() for leaf in leaves))
    counts = tuple(part and part.order.count for part in experiment.data[:3])
    vocabulary = experiment.data.vocabulary
    readers = getattr(experiment.data.train, "inner", None)
    kind = type(readers), getattr(readers, "processes", 0)
    names = experiment.data.class_names
    return digest.hexdigest(), counts, vocabulary and len(vocabulary), names, kind


@pytest.fixture(scope="module")
def unchanged(paths: dict[str, str]) -> Callable[[str], tuple[Any, ...]]:
    """Of each kind of files, what a job on them is before a setting changes."""
    return functools.cache(lambda choice: fingerprint(job(choice, paths[choice])))


def another(name: str, value: Any) -> Any:
    if name in OTHER:
        return OTHER[name]
    return not value if isinstance(value, bool) else value + 2


@pytest.mark.parametrize(("name", "choice"), ALL)
def test_every_setting_of_data_in_files_changes_something(
    name: str,
    choice: str,
    paths: dict[str, str],
    unchanged: Callable[[str], tuple[Any, ...]],
):
    base = job(choice, paths[choice])
    values = to_dict(base)
    values["data"][name] = another(name, getattr(base.data, name))
    changed = from_dict(values)
    assert changed != base
    assert fingerprint(changed) != unchanged(choice)


@pytest.mark.parametrize("choice", IN_FILES)
def test_a_job_on_files_takes_a_step_and_says_how_it_was_fed(choice: str, paths: dict[str, str]):
    config = dataclasses.replace(job(choice, paths[choice]), quiet=True)
    config.train.steps = 2
    result = build(config).fit()
    assert np.isfinite(result.history[-1]["loss"])
    assert result.programs["input"]["mode"]


@pytest.mark.parametrize("choice", ["idx", "cifar", "images", "npy", "table", "tokens"])
def test_a_path_that_is_missing_or_wrong_is_refused_in_one_line(choice: str):
    with pytest.raises(ConfigError, match=r"data\.path is missing: give data\.path=<"):
        from_dict({"data": {"name": choice}})
    with pytest.raises(DataError, match="no/such/thing") as caught:
        build(job(choice, "no/such/thing"))
    assert "\n" not in str(caught.value)


def test_a_share_for_the_test_beside_a_test_part_is_refused(paths: dict[str, str], tmp_path: Path):
    for part in ("train", "t10k"):
        for name in ("images-idx3", "labels-idx1"):
            source = Path(paths["idx"]) / f"train-{name}-ubyte"
            (tmp_path / f"{part}-{name}-ubyte").write_bytes(source.read_bytes())
    config = job("idx", str(tmp_path))
    assert fingerprint(config)[1] == (54, 6, 60)
    config.data.test = 0.5
    with pytest.raises(DataError, match=r"a test part of its own: leave data\.test at null"):
        build(config)


def test_shares_that_leave_nothing_are_refused_before_anything_is_read():
    with pytest.raises(ConfigError, match="leave nothing to train on"):
        from_dict({"data": {"name": "idx", "path": "a", "validation": 0.6, "test": 0.4}})
