"""What an artifact says of records, in rows that a person or a table can read."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from functorch_kit.export.artifact import Artifact
from functorch_kit.export.errors import ArtifactError
from functorch_kit.export.records import Record

_MOST_BYTES = 128 << 20


def header(artifact: Artifact) -> list[str]:
    """Names of the columns that ``predictions`` yields.

    Example:
        >>> import tempfile, jax, jax.numpy as jnp
        >>> from pathlib import Path
        >>> from functorch_kit import export, nn
        >>> folder = Path(tempfile.mkdtemp()) / "same"
        >>> _ = export.save(folder, nn.identity, {}, (), jnp.ones((1, 2)))
        >>> header(export.load(folder))
        ['record', 'y0', 'y1']
    """
    if _has_classes(artifact):
        return ["record", "prediction", "probability"]
    (output,) = artifact.manifest.outputs
    count = math.prod(side for side in output.shape[1:] if isinstance(side, int))
    return ["record", *(["prediction"] if count == 1 else [f"y{n}" for n in range(count)])]


def predictions(
    artifact: Artifact, records: Iterable[Record], *, batch_size: int = 64
) -> Iterator[list[str]]:
    """A row for each record: the likeliest class or next token with its probability, or numbers.

    Args:
        artifact: with one output.
        records: as ``read_records`` yields them.
        batch_size: records that are computed at once, fewer where their outputs are large; of an
            artifact for batches of one size, that size.

    Yields:
        A row, as ``header`` names its columns.

    Raises:
        ArtifactError: an artifact with several inputs or outputs, or what the artifact refuses.

    Example:
        >>> import tempfile, jax, jax.numpy as jnp
        >>> from pathlib import Path
        >>> from functorch_kit import export, nn
        >>> folder = Path(tempfile.mkdtemp()) / "double"
        >>> double = nn.lambda_(lambda x: 2 * x)
        >>> _ = export.save(folder, double, {}, (), jnp.ones((1, 2)))
        >>> records = [Record("0", np.array([1, 2], np.float32))]
        >>> list(predictions(export.load(folder), records))
        [['0', '2', '4']]
    """
    found = artifact.manifest
    if len(found.inputs) != 1 or len(found.outputs) != 1:
        raise ArtifactError("the artifact has several inputs or outputs: call it from Python")
    (output,) = found.outputs
    fixed = found.inputs[0].shape[0]
    each = 4 * math.prod(side for side in output.shape[1:] if isinstance(side, int))
    size = max(1, min(batch_size, _MOST_BYTES // max(each, 1)))
    size = fixed if isinstance(fixed, int) else size
    waiting = iter(records)
    while batch := list(itertools.islice(waiting, size)):
        # The last batch is filled up: one size is one program.
        rows = [record.x for record in batch] + [batch[-1].x] * (size - len(batch))
        y = np.asarray(artifact(np.stack(rows)))[: len(batch)]
        yield from _rows(artifact, batch, y)


def _rows(artifact: Artifact, batch: Sequence[Record], y: np.ndarray) -> Iterator[list[str]]:
    if not _has_classes(artifact):
        for record, numbers in zip(batch, y, strict=True):
            yield [record.name, *(f"{number:.6g}" for number in np.ravel(numbers).tolist())]
        return
    for record, logits in zip(batch, y, strict=True):
        if artifact.vocabulary is not None:
            logits = logits[record.last]
        odds = np.exp(logits.astype(np.float64) - logits.max())
        best = int(odds.argmax())
        yield [record.name, _name(artifact, best), f"{odds[best] / odds.sum():.6g}"]


def _has_classes(artifact: Artifact) -> bool:
    return artifact.manifest.task in ("classification", "language model")


def _name(artifact: Artifact, number: int) -> str:
    if artifact.vocabulary is not None:
        return artifact.vocabulary.decode([number])
    classes = artifact.manifest.classes
    return classes[number] if number < len(classes) else str(number)
