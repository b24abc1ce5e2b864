"""Data sets from files, each by one ``path``: IDX, CIFAR, image folders, tables, NumPy maps."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from functorch_kit.data.augment import (
    chain,
    mixtures,
    random_crop,
    random_flip,
    scaled,
)
from functorch_kit.data.augment import (
    cutout as cut_out,
)
from functorch_kit.data.cifar import cifar_folder
from functorch_kit.data.idx import idx_folder
from functorch_kit.data.images import image_folder
from functorch_kit.data.inputs import Inputs
from functorch_kit.data.mapped import mapped
from functorch_kit.data.parts import from_source
from functorch_kit.data.pipeline import Data, DataError
from functorch_kit.data.randaugment import rand_augment as randomly_augmented
from functorch_kit.data.source import ArraySource
from functorch_kit.data.tables import read_columns
from functorch_kit.data.transformed import Transform

PARTS = ("train", "validation", "test")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def idx(path: str | Path, *, batch_size: int, seed: int = 0, **options: Any) -> Data:
    """MNIST and its family: a folder of IDX files, gzipped or not.

    Args:
        path: the folder; its ``t10k`` pair is the test part, and where there is none a share of
            the train pair is split off.
        batch_size: records in a training batch.
        seed: of the training order and of the transforms.
        **options: ``validation``, ``test`` and ``split_seed`` as for ``arrays``, ``check`` as for
            ``from_source``, and the transforms of ``image_transforms``.

    Returns:
        Data with ``x`` (n, height, width, 1) float32 and ``y`` (n,).

    Raises:
        DataError: see ``idx_folder``.

    Example:
        >>> try:
        ...     idx("no/such/folder", batch_size=8)
        ... except DataError as error:
        ...     print(error)
        data folder 'no/such/folder' does not exist: give data.path=<folder>
    """
    return _of_arrays(idx_folder(path), (), Path(path), batch_size, seed, options)


def cifar(path: str | Path, *, batch_size: int, seed: int = 0, **options: Any) -> Data:
    """CIFAR-10 or CIFAR-100: a folder with the binary version.

    Args:
        path: the folder, see ``cifar_folder``.
        batch_size: records in a training batch.
        seed: of the training order and of the transforms.
        **options: as for ``idx``.

    Returns:
        Data with ``x`` (n, 32, 32, 3) float32 and ``y`` (n,).

    Raises:
        DataError: see ``cifar_folder``.

    Example:
        >>> try:
        ...     cifar("no/such/folder", batch_size=8)
        ... except DataError as error:
        ...     print(error)
        data folder 'no/such/folder' does not exist: give data.path=<folder>
    """
    parts, names = cifar_folder(path)
    return _of_arrays(parts, names, Path(path), batch_size, seed, options)


def images(
    path: str | Path,
    *,
    batch_size: int,
    seed: int = 0,
    size: tuple[int, int] = (224, 224),
    channels: int = 3,
    validation: float = 0.1,
    test: float | None = None,
    split_seed: int = 0,
    check: str = "refuse",
    processes: int = 0,
    **transforms: Any,
) -> Data:
    """A folder of images, a subfolder for each class, decoded while the model trains.

    Args:
        path: the folder, see ``image_folder``; its ``test`` or ``val`` folder is the test part.
        batch_size: records in a training batch.
        seed: of the training order and of the transforms.
        size: height and width that images are brought to.
        channels: 3 for colours, 1 for grey.
        validation: fraction held out for validation.
        test: fraction held out for the test, where there is no folder of it; 0.2 if None.
        split_seed: of the split.
        check: what happens to images that cannot be decoded: ``"refuse"`` or ``"skip"``.
        processes: worker processes that decode; 0 for threads of this one.
        **transforms: see ``image_transforms``; normalised by ImageNet's mean and deviation.

    Returns:
        Data with ``x`` (n, *size, channels) float32 and ``y`` (n,) int32.

    Raises:
        DataError: see ``image_folder``.

    Example:
        >>> try:
        ...     images("no/such/folder", batch_size=8)
        ... except DataError as error:
        ...     print(error)
        image folder 'no/such/folder' does not exist: give data.path=<folder>
    """
    parts = image_folder(path, size=size, channels=channels)
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.449,), (0.226,))
    every, train = image_transforms(mean=mean, std=std, shape=(*size, channels), **transforms)
    return from_source(
        parts["train"], batch_size=batch_size, seed=seed, validation=validation, test=test,
        split_seed=split_seed, held_out=parts.get("test"), check=check, processes=processes,
        every=every, train=train,
    )._replace(
        name=Path(path).name, inputs=_of_images((*size, channels), mean, std, transforms)
    )  # fmt: skip


def table(
    path: str | Path, *, batch_size: int, seed: int = 0, target: str | None = None, **options: Any
) -> Data:
    r"""A CSV or Parquet file: numbers to learn from, and one column to predict.

    Args:
        path: the file, see ``read_table``.
        batch_size: records in a training batch.
        seed: of the training order.
        target: the column to predict; the last one if None.
        **options: ``validation``, ``test`` and ``split_seed``, as for ``arrays``.

    Returns:
        Data with ``x`` (n, columns) float32, each column of mean 0 and deviation 1 over the
        training part, and ``y``: classes (n,) or targets (n, 1) float32.

    Raises:
        DataError: see ``read_table``.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "line.csv"
        >>> _ = path.write_text("a,b\n" + "".join(f"{i},{2.5 * i}\n" for i in range(20)))
        >>> table(path, batch_size=4).train(0)["y"].shape
        (4, 1)
    """
    arrays, names, columns = read_columns(path, target)
    source = ArraySource(arrays, Path(path).stem, names)
    parts = from_source(source, batch_size=batch_size, seed=seed, **options)
    # What is held out has no say in how columns are scaled.
    x = parts.train.arrays["x"].astype(np.float64)
    mean, deviation = x.mean(0), x.std(0)
    deviation = np.where(deviation > 0, deviation, 1)

    def standard(part: Any) -> Any:
        if part is None:
            return None
        scaled = ((part.arrays["x"] - mean) / deviation).astype(np.float32)
        return dataclasses.replace(part, arrays={**part.arrays, "x": scaled})

    made = {name: standard(getattr(parts, name)) for name in PARTS}
    inputs = Inputs(
        "table", x.shape[1:], "float32", tuple(mean.tolist()), tuple(deviation.tolist()), columns
    )
    return parts._replace(**made, inputs=inputs)


def npy(path: str | Path, *, batch_size: int, seed: int = 0, **options: Any) -> Data:
    """Arrays in ``.npy`` or ``.npz`` files, memory-mapped: batches are gathered from the file.

    Args:
        path: a folder with ``x.npy`` and ``y.npy``, or an ``.npz`` file of both; see ``mapped``.
        batch_size: records in a training batch.
        seed: of the training order.
        **options: as for ``from_source``.

    Returns:
        Data whose ``x`` and ``y`` have the shapes and dtypes of the files, in 32 bits.

    Raises:
        DataError: see ``mapped``; or there is no x or no y.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> np.save(folder / "x.npy", np.zeros((40, 3), np.float32))
        >>> np.save(folder / "y.npy", np.arange(40) % 2)
        >>> npy(folder, batch_size=8).train(0)["x"].shape
        (8, 3)
    """
    source = mapped(path)
    for name in ("x", "y"):
        if name not in source.spec:
            raise DataError(
                f"data file {str(path)!r} lacks {name} (it holds {', '.join(source.spec)}):"
                " save x and y"
            )
    return from_source(source, batch_size=batch_size, seed=seed, **options)


def image_transforms(
    *,
    mean: Any = (0.0,),
    std: Any = (1.0,),
    shape: tuple[int, int, int] = (32, 32, 3),
    normalize: bool = True,
    crop: int = 0,
    flip: bool = False,
    cutout: int = 0,
    rand_augment: int = 0,
    mixup: float = 0.0,
    cutmix: float = 0.0,
) -> tuple[Transform | None, Transform | None]:
    """The usual transforms of images: one for every batch, one for training.

    Args:
        mean: by channel, of images from 0 to 1.
        std: likewise.
        shape: of an image.
        normalize: whether mean and deviation are taken out.
        crop: pixels by which a training image moves, at most.
        flip: whether left and right are exchanged in every second one.
        cutout: side of a square of zeros.
        rand_augment: strength of two changes that are drawn for each image, to 30; 0 for none.
        mixup: alpha of mixup; 0 for none.
        cutmix: alpha of cutmix; 0 for none.

    Returns:
        What every batch goes through where nothing is drawn, and what training batches go through
        in its place; None where that is the same.

    Raises:
        DataError: a crop or a square larger than the image.

    Example:
        >>> every, train = image_transforms(flip=True)
        >>> image_transforms()[1] is None, train is None
        (True, False)
    """
    for name, size in (("crop", crop), ("cutout", cutout)):
        if size > min(shape[:2]):
            raise DataError(
                f"data.{name} is {size}, and images are {shape[0]}×{shape[1]}:"
                f" give {min(shape[:2])} at most"
            )
    normal = scaled(mean, std) if normalize else scaled()
    drawn: list[Transform] = []
    if rand_augment:
        drawn.append(randomly_augmented(2, rand_augment))
    if crop:
        drawn.append(random_crop(crop))
    if flip:
        drawn.append(random_flip())
    after: list[Transform] = []
    if cutout:
        after.append(cut_out(cutout))
    if mixup or cutmix:
        after.append(mixtures(mixup=mixup, cutmix=cutmix))
    if not drawn and not after:
        return normal, None
    # Colours are changed before they are normalised; cut out is what counts as nothing after it.
    return normal, chain(scaled(), *drawn, normal, *after)


def _of_arrays(
    parts: dict[str, dict[str, np.ndarray]],
    names: tuple[str, ...],
    path: Path,
    batch_size: int,
    seed: int,
    options: dict[str, Any],
) -> Data:
    split = {
        name: options.pop(name)
        for name in ("validation", "test", "split_seed", "check")
        if name in options
    }
    x = parts["train"]["x"]
    mean, std = _statistics(x)
    every, train = image_transforms(mean=mean, std=std, shape=x.shape[1:], **options)
    sources = {part: ArraySource(arrays, path.name, names) for part, arrays in parts.items()}
    return from_source(
        sources["train"], batch_size=batch_size, seed=seed, held_out=sources.get("test"),
        every=every, train=train, **split,
    )._replace(inputs=_of_images(x.shape[1:], mean, std, options))  # fmt: skip


def _of_images(
    shape: tuple[int, ...], mean: tuple[float, ...], std: tuple[float, ...], options: dict[str, Any]
) -> Inputs:
    if not options.get("normalize", True):
        mean, std = (0.0,), (1.0,)
    return Inputs("image", tuple(shape), "uint8", mean, std)


def _statistics(x: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel, from 0 to 1, from counts of levels: exact and quick."""
    levels = np.arange(256) / 255
    mean, std = list[float](), list[float]()
    for channel in range(x.shape[-1]):
        # By pieces: `bincount` makes eight bytes of each.
        counts = np.zeros(256, np.int64)
        for start in range(0, len(x), 1024):
            piece = np.ravel(x[start : start + 1024, ..., channel])
            counts += np.bincount(piece, minlength=256)
        shares = counts / counts.sum()
        mean.append(float(shares @ levels))
        std.append(math.sqrt(float(shares @ (levels - mean[-1]) ** 2)) or 1.0)
    return tuple(mean), tuple(std)
