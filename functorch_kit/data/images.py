"""Folders of image files, decoded by Pillow while the model trains."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import jax
import numpy as np

from functorch_kit.data.pipeline import DataError
from functorch_kit.data.source import DecodedSource

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_HELD_OUT = ("test", "val", "valid", "validation")


@dataclasses.dataclass(frozen=True)
class _Decoder:
    """From a record's number to its image and class; it can be sent to a worker process."""

    files: tuple[str, ...]
    labels: np.ndarray
    height: int
    width: int
    channels: int

    def __call__(self, number: int) -> dict[str, np.ndarray]:
        x = decode_image(self.files[number], (self.height, self.width), self.channels)
        return {"x": x, "y": self.labels[number]}


def decode_image(
    path: str | Path, size: tuple[int, int], channels: int, *, most_pixels: int | None = None
) -> np.ndarray:
    """An image file as numbers of the size that a model takes.

    Args:
        path: the file, of one of the formats that a folder of images may hold.
        size: height and width that it is brought to: the largest middle part of these proportions,
            resized, so that nothing is stretched.
        channels: 3 for red, green and blue, 1 for grey.
        most_pixels: pixels that it may have, asked before any of them is decoded; None: what Pillow
            takes.

    Returns:
        (height, width, channels), uint8.

    Raises:
        DataError: it cannot be decoded, or is too large.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> path = Path(tempfile.mkdtemp()) / "red.png"
        >>> Image.new("RGB", (5, 4), "red").save(path)
        >>> decode_image(path, (2, 2), 3)[0, 0].tolist()
        [255, 0, 0]
    """
    from PIL import Image

    height, width = size
    mode = "L" if channels == 1 else "RGB"
    try:
        # A closed list: by its content, a file may be what Pillow starts another program for.
        with Image.open(path, formats=_FORMATS) as image:
            pixels = image.width * image.height
            if most_pixels is not None and pixels > most_pixels:
                raise DataError(
                    f"image file {str(path)!r} has {pixels} pixels, and {most_pixels} are decoded"
                    " at most: make it smaller"
                )
            decoded = image if image.mode == mode else image.convert(mode)
            if decoded.size != (width, height):
                scale = min(decoded.width / width, decoded.height / height)
                wide, high = width * scale, height * scale
                left, top = (decoded.width - wide) / 2, (decoded.height - high) / 2
                box = (left, top, left + wide, top + high)
                decoded = decoded.resize((width, height), Image.Resampling.BILINEAR, box)
            return np.asarray(decoded).reshape(height, width, channels)
    except DataError:
        raise
    except Exception as error:  # a decoder of damaged files raises what it likes
        raise DataError(f"image file {str(path)!r} cannot be decoded ({_plain(error)})") from error


def image_folder(
    path: str | Path, *, size: tuple[int, int] = (224, 224), channels: int = 3
) -> dict[str, DecodedSource]:
    """The images under a folder, each in the subfolder of its class.

    Args:
        path: holds a folder for each class; or ``train`` and perhaps ``test`` (or ``val``), which
            do.
        size: height and width that every image is brought to: the largest middle part of these
            proportions, resized.
        channels: 3 for red, green and blue, 1 for grey.

    Returns:
        ``train`` and, where there is one, ``test``: sources of ``x`` (height, width, channels)
        uint8 and ``y`` () int32. Classes are numbered by name, in both parts alike.

    Raises:
        DataError: no such folder, no images, a class of the test part that none trains, or Pillow
            is not installed.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name, colour in (("apples", "red"), ("limes", "lime")):
        ...     (folder / name).mkdir()
        ...     Image.new("RGB", (5, 4), colour).save(folder / name / "1.png")
        >>> source = image_folder(folder, size=(2, 2))["train"]
        >>> batch = source.batch(np.array([1]))
        >>> source.class_names, batch["x"][0, 0, 0].tolist(), batch["y"].tolist()
        (('apples', 'limes'), [0, 255, 0], [1])
    """
    if channels not in (1, 3):
        raise DataError(f"channels is {channels}: give 3 for colours, 1 for grey")
    if importlib.util.find_spec("PIL") is None:
        raise DataError("image files are decoded by Pillow: pip install 'functorch_kit[data]'")
    path = Path(path)
    if not path.is_dir():
        raise DataError(f"image folder {str(path)!r} does not exist: give data.path=<folder>")
    parts = {"train": path / "train" if (path / "train").is_dir() else path}
    if parts["train"] != path:
        held_out = [path / name for name in _HELD_OUT if (path / name).is_dir()]
        if held_out:
            parts["test"] = held_out[0]
    names = tuple(folder.name for folder in _folders(parts["train"]))
    return {
        part: _source(folder, names, size, channels, f"image folder {str(folder)!r}")
        for part, folder in parts.items()
    }


def _source(
    folder: Path, names: tuple[str, ...], size: tuple[int, int], channels: int, name: str
) -> DecodedSource:
    files: list[str] = []
    labels: list[int] = []
    for each in _folders(folder):
        if each.name not in names:
            raise DataError(f"{name} has the class {each.name!r}, which the train part has not")
        found = sorted(str(f) for f in each.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES)
        files += found
        labels += [names.index(each.name)] * len(found)
    if not files:
        raise DataError(f"{name} holds no images: give one with a folder of images for each class")
    classes = np.array(labels, np.int32)
    return DecodedSource(
        len(files),
        _Decoder(tuple(files), classes, *size, channels),
        {
            "x": jax.ShapeDtypeStruct((*size, channels), np.uint8),
            "y": jax.ShapeDtypeStruct((), np.int32),
        },
        name,
        classes,
        names,
    )


def _folders(path: Path) -> list[Path]:
    """Those that somebody made: programs hide theirs behind a dot."""
    return sorted(f for f in path.iterdir() if f.is_dir() and not f.name.startswith("."))


def _plain(error: Exception) -> str:
    # Pillow repeats the file's name, or the stream's address, in what it says.
    return (str(error) or type(error).__name__).splitlines()[0].split(" '/")[0].split(" <")[0]
