"""The 1,797 real scanned digits that scikit-learn carries."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from functorch_kit.data.arrays import arrays
from functorch_kit.data.inputs import Inputs
from functorch_kit.data.pipeline import Data, DataError


def digits(*, batch_size: int = 64, seed: int = 0) -> Data:
    """Handwritten digits, 8×8 grey values from 0 to 1, split 70/10/20 and stratified.

    From the UCI repository's "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak,
    1998), in the copy that scikit-learn carries; read from its file, because importing
    ``sklearn.datasets`` takes longer than the reading.

    Args:
        batch_size: records in a training batch.
        seed: of the training order; the split is the same for every seed.

    Returns:
        Data with ``x`` (n, 8, 8, 1) float32 and ``y`` (n,) int32.

    Raises:
        DataError: scikit-learn is not installed.

    Example:
        >>> from functorch_kit import data
        >>> parts = data.digits()
        >>> [part.order.count for part in (parts.train, parts.validation, parts.test)]
        [1258, 180, 359]
    """
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise DataError(
            "the digits come with scikit-learn: pip install 'functorch_kit[experiments]'"
        )
    path = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    table = np.loadtxt(path, delimiter=",", dtype=np.int32)
    x = table[:, :-1].reshape(-1, 8, 8, 1).astype(np.float32) / 16
    parts = arrays(x, table[:, -1], batch_size=batch_size, seed=seed, name="digits")
    return parts._replace(inputs=Inputs("image", (8, 8, 1), "float32"))
