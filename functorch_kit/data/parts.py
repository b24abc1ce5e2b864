"""From sources to what ``fit`` takes: parts, checks, transforms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from functorch_kit.data.mixing import Joined, Mixture
from functorch_kit.data.order import Sequential, Shuffled
from functorch_kit.data.pipeline import Data, DataError, evaluation, training
from functorch_kit.data.processes import InProcesses
from functorch_kit.data.source import ArraySource, RecordError, Subset, name_of, record_of
from functorch_kit.data.split import stratified_split
from functorch_kit.data.streamed import CHECKS, Streamed, canonical
from functorch_kit.data.transformed import Transform, Transformed

_RESIDENT_BYTES = 1 << 30
_EVALUATION_BYTES = 64 << 20
_MOST_CLASSES = 1 << 20


def from_source(
    source: Any,
    *,
    batch_size: int,
    seed: int = 0,
    validation: float = 0.1,
    test: float | None = None,
    split_seed: int = 0,
    held_out: Any = None,
    check: str = "refuse",
    resident: bool | None = None,
    processes: int = 0,
    classes: int | None = None,
    every: Transform | None = None,
    train: Transform | None = None,
) -> Data:
    """A data set from any source: split, checked, shuffled, transformed.

    Arrays in memory of up to 1 GB live on the device; everything else is read while the model
    trains. Where the source knows its classes, the split is stratified.

    Args:
        source: see ``Source``.
        batch_size: records in a training batch.
        seed: of the training order and of the transforms.
        validation: fraction held out for validation; 0 for none.
        test: fraction held out for the test; 0 for none. None: 0.2, or nothing beside
            ``held_out``.
        split_seed: of the split.
        held_out: the source of the test part, where there is one.
        check: of each batch: ``"refuse"`` bad records, ``"skip"`` them or ``"off"``.
        resident: whether the data live on the device; None: arrays of up to 1 GB do, unless bad
            records are skipped.
        processes: worker processes that read training batches, see ``InProcesses``; 0 for threads
            of this one.
        classes: how many there are; None: as the source says.
        every: a transform of every batch that draws nothing, such as ``scaled()``.
        train: a transform of training batches, in place of ``every``.

    Raises:
        DataError: too few records, a class out of range, fractions that leave nothing to train on,
            a fraction for the test beside a part for it.

    Example:
        >>> from functorch_kit import data
        >>> source = data.ArraySource({"x": np.zeros((40, 2, 2, 1), np.uint8),
        ...                            "y": np.arange(40) % 4})
        >>> parts = data.from_source(source, batch_size=8, every=data.scaled())
        >>> batch = parts.train(0)
        >>> batch["x"].dtype, len(parts.class_names), parts.test.order.count
        (dtype('float32'), 4, 8)
    """
    if check not in CHECKS:
        raise DataError(f"check is {check!r}: give one of {', '.join(CHECKS)}")
    names = _class_names(source, classes)
    skips = check == "skip"
    for each in (source, held_out):
        if each is not None and names and not skips and check != "off":
            _check_labels(each, len(names))
    labels = getattr(source, "labels", None)
    labels = np.zeros(len(source), np.int32) if labels is None else labels
    if held_out is not None and test is not None:
        raise DataError(f"{name_of(source)} has a test part of its own: leave data.test at null")
    share = 0.2 if test is None and held_out is None else test or 0.0
    parts = stratified_split(labels, validation=validation, test=share, seed=split_seed)
    sources = [_subset(source, part) for part in parts]
    if held_out is not None:
        sources[2] = held_out
    if not 1 <= batch_size <= len(sources[0]):
        raise DataError(
            f"batch_size is {batch_size}, but {name_of(source)} has {len(sources[0])} training"
            f" records: give a number from 1 to {len(sources[0])}"
        )
    made: list[Any] = []
    for place, part in enumerate(sources):
        if len(part) == 0:
            made.append(None)
            continue
        size = batch_size if place == 0 else None
        pipeline = _pipeline(part, size, seed, check, len(names), resident)
        if processes and place == 0:
            pipeline = InProcesses(pipeline, processes)
        if train is not None and place == 0:
            pipeline = Transformed(pipeline, train, seed)
        elif every is not None:
            pipeline = Transformed(pipeline, every, random=False)
        made.append(pipeline)
    # One batch size for both: one compiled program evaluates them.
    return Data(*made, class_names=names, name=name_of(source))


def mixed(
    sources: Sequence[Any],
    weights: Sequence[float],
    *,
    batch_size: int,
    seed: int = 0,
    check: str = "refuse",
) -> Streamed:
    """Training batches drawn from several sources in given proportions.

    Args:
        sources: of one spec, and with the same classes where they have any.
        weights: share of each; they need not add up to 1.
        batch_size: records in a batch.
        seed: of the order.
        check: see ``Streamed``.

    Returns:
        A pipeline: ``Data(mixed(…), validation, test)`` is what ``fit`` takes.

    Raises:
        DataError: sources that differ, or shares that cannot be.

    Example:
        >>> from functorch_kit.data import ArraySource
        >>> few, many = (ArraySource({"x": np.full(n, n)}) for n in (3, 1000))
        >>> batch = mixed([few, many], [0.25, 0.75], batch_size=10_000)(0)
        >>> int((batch["x"] == 3).sum())
        2500
    """
    joined = Joined(*sources)
    named = [_class_names(each, None) for each in sources]
    for each, names in zip(sources, named, strict=True):
        # Classes are numbers: two sources must mean the same by them, or know no names.
        if names[: len(named[0])] != named[0][: len(names)]:
            raise DataError(
                f"{name_of(each)} has other classes than {name_of(sources[0])}: number them alike"
            )
    counts = tuple(len(each) for each in sources)
    order = Mixture(counts, tuple(map(float, weights)), batch_size, seed)
    return Streamed(joined, order, check, max(map(len, named)))


def _pipeline(
    part: Any, batch_size: int | None, seed: int, check: str, classes: int, resident: bool | None
) -> Any:
    record_bytes = sum(
        math.prod(leaf.shape) * canonical(leaf.dtype).itemsize for leaf in part.spec.values()
    )
    evaluated = max(1, min(512, _EVALUATION_BYTES // max(record_bytes, 1)))
    if resident is None:
        in_memory = isinstance(part, ArraySource) and check != "skip"
        resident = in_memory and record_bytes * len(part) <= _RESIDENT_BYTES
    if resident:
        whole = Streamed(part, Sequential(len(part), len(part)), check, classes)
        checked = whole.read(np.arange(len(part)))
        if batch_size is None:
            return evaluation(checked, evaluated)
        return training(checked, batch_size, seed)
    if batch_size is None:
        return Streamed(part, Sequential(len(part), evaluated), check, classes)
    return Streamed(part, Shuffled(len(part), batch_size, seed), check, classes)


def _subset(source: Any, records: np.ndarray) -> Any:
    """A part of a source; of arrays in memory, arrays again."""
    if not isinstance(source, ArraySource) or len(records) == 0:
        return Subset(source, records)
    if len(records) == len(source):
        return source
    taken = {name: array[records] for name, array in source.arrays.items()}
    return ArraySource(taken, source.name, source.class_names)


def _class_names(source: Any, classes: int | None) -> tuple[str, ...]:
    names = tuple(getattr(source, "class_names", ()))
    if classes is not None:
        return names if len(names) == classes else tuple(map(str, range(classes)))
    labels = getattr(source, "labels", None)
    if names or labels is None:
        return names
    _check_labels(source, _MOST_CLASSES)
    return tuple(map(str, range(int(labels.max()) + 1)))


def _check_labels(source: Any, classes: int) -> None:
    """Where all labels are known: before anything else is read."""
    labels = getattr(source, "labels", None)
    if labels is None:
        return
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        place = int(np.argmax(wrong))
        raise RecordError(
            name_of(source),
            record_of(source, place),
            f"its class is {labels[place]}: classes count from 0 to {classes - 1}; targets that are"
            " no classes must be floats",
        )


def first_batch_fits(pipeline: Any, x_spec: Any = None) -> None:
    """Read the first batch and compare it with what was promised and what the model takes.

    Before anything is compiled, so that a file that cannot be used is heard of at once. What a
    transform makes of the batch follows from its spec, and is not computed.

    Args:
        pipeline: any pipeline.
        x_spec: shape and dtype of the batch that the model was made for; None: the pipeline's own.

    Raises:
        DataError: naming the part, what came and what was expected.

    Example:
        >>> from functorch_kit.data import training
        >>> pipeline = training({"x": np.zeros((4, 3), np.float32)}, 2, 0)
        >>> try:
        ...     first_batch_fits(pipeline, jax.ShapeDtypeStruct((2, 5), np.float32))
        ... except DataError as error:
        ...     print(error)
        x of the first batch is float32 (2, 3), and the model was made for float32 (2, 5)
    """
    if x_spec is not None and (made := pipeline.spec["x"]) != x_spec:
        for leaf, other in zip(jax.tree.leaves(made), jax.tree.leaves(x_spec), strict=True):
            if leaf.shape != tuple(other.shape) or leaf.dtype != other.dtype:
                raise DataError(
                    f"x of the first batch is {_in_words(leaf)}, and the model was made for"
                    f" {_in_words(other)}"
                )
    while hasattr(pipeline, "inner"):
        pipeline = pipeline.inner
    batch, promised = pipeline(0), pipeline.spec
    if set(batch) != set(promised):
        raise DataError(
            f"the first batch has {', '.join(sorted(batch))}, and its spec says"
            f" {', '.join(sorted(promised))}"
        )
    for name, values in batch.items():
        leaves = zip(jax.tree.leaves(values), jax.tree.leaves(promised[name]), strict=True)
        for value, leaf in leaves:
            if value.shape != leaf.shape or value.dtype != leaf.dtype:
                raise DataError(
                    f"{name} of the first batch is {_in_words(value)}, and its spec says"
                    f" {_in_words(leaf)}"
                )


def _in_words(leaf: Any) -> str:
    return f"{np.dtype(leaf.dtype)} {tuple(leaf.shape)}"
