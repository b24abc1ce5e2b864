"""Fixed splits into train, validation and test."""

from __future__ import annotations

import numpy as np

from functorch_kit.data.pipeline import DataError


def stratified_split(
    labels: np.ndarray, *, validation: float, test: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Record numbers of the three parts, each class shared out in the same proportion.

    Records are sorted by class, shuffled within it, and dealt out evenly, so that a class's share
    of a part is exact within two records, and a part's size within one record of its fraction.

    Args:
        labels: the class of each record (n,).
        validation: fraction of the records, from 0 to 1.
        test: fraction of the records; ``validation + test`` below 1.
        seed: another seed is another split; it is no business of a run's seed.

    Returns:
        Sorted record numbers of train, validation and test.

    Raises:
        DataError: fractions that are negative, not numbers, or leave nothing to train on.

    Example:
        >>> import numpy as np
        >>> labels = np.array([0] * 50 + [1] * 50)
        >>> parts = stratified_split(labels, validation=0.1, test=0.2)
        >>> [len(part) for part in parts], [labels[part].mean().item() for part in parts]
        ([70, 10, 20], [0.5, 0.5, 0.5])
    """
    if not (validation >= 0 and test >= 0 and validation + test < 1):
        raise DataError(
            f"validation {validation} and test {test} must be fractions that leave some to train on"
        )
    shuffled = np.random.Generator(np.random.Philox(key=seed)).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    test_part = _dealt(len(by_class), test)
    rest = by_class[~test_part]
    validation_part = _dealt(len(rest), validation / (1 - test))
    parts = rest[~validation_part], rest[validation_part], by_class[test_part]
    return tuple(np.sort(part) for part in parts)  # type: ignore[return-value]


def _dealt(count: int, fraction: float) -> np.ndarray:
    """A mask of ``fraction`` of ``count`` places, evenly spaced."""
    edges = np.floor(np.arange(count + 1) * fraction + 0.5)
    return np.diff(edges) > 0
