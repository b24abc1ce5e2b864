"""The settings of each data set."""

from __future__ import annotations

import dataclasses

from functorch_kit.config.settings import setting

_COUNT = {"least": 1, "most": 100_000_000}
_WIDTH = {"least": 1, "most": 65_536}
_SEED = {"least": 0, "most": 2**32 - 1}
_SHARE = {"least": 0, "below": 1}
_PIXELS = {"least": 0, "most": 4096}
_ALPHA = {"least": 0, "most": 100}
_CHECKS = ("refuse", "skip", "off")


@dataclasses.dataclass
class Digits:
    """1,797 scanned digits, 8×8 pixels, that come with scikit-learn."""


@dataclasses.dataclass
class SyntheticImages:
    """Striped images under noise; the class is the angle of the stripes."""

    count: int = setting(2048, "number of images", **_COUNT)
    shape: tuple[int, int, int] = setting(
        (64, 64, 3), "height, width and channels", least=1, most=4096
    )
    classes: int = setting(10, "number of angles", least=2, most=1000)
    noise: float = setting(0.5, "standard deviation of the noise", least=0, most=1000)


@dataclasses.dataclass
class Npz:
    """A file that numpy.savez(path, x=x, y=y) wrote."""

    path: str | None = setting(None, "the file", needed="<file.npz>")
    validation: float = setting(0.1, "share held out for validation", **_SHARE)
    test: float = setting(0.2, "share held out for the test", **_SHARE)
    split_seed: int = setting(0, "seed of the split", **_SEED)


@dataclasses.dataclass
class Gaussian:
    """Standard normal inputs and targets, to be learned by heart."""

    count: int = setting(64, "number of records", **_COUNT)
    inputs: int = setting(1000, "size of x", least=1, most=1_000_000)
    outputs: int = setting(10, "size of y", **_WIDTH)


@dataclasses.dataclass
class Spirals:
    """Points on two spiral arms; which arm, is the class."""

    count: int = setting(100, "number of points", **_COUNT)
    noise: float = setting(0.05, "standard deviation of the noise", least=0, most=1000)
    rotations: float = setting(1.0, "turns of an arm", least=0, most=1000)
    validation: float = setting(0.0, "share held out for validation", **_SHARE)
    test: float = setting(0.0, "share held out for the test", **_SHARE)


@dataclasses.dataclass
class Sinusoids:
    """Points of sine waves under noise, a regression from one number."""

    count: int = setting(1024, "number of points", **_COUNT)
    outputs: int = setting(1, "number of waves, of rising frequency", **_WIDTH)
    noise: float = setting(0.1, "standard deviation of the noise", least=0, most=1000)


@dataclasses.dataclass
class TeacherStudent:
    """What a random two-layer network says of Gaussian inputs."""

    count: int = setting(4096, "number of records", **_COUNT)
    inputs: int = setting(20, "size of x", **_WIDTH)
    hidden: int = setting(8, "ReLU units of the teacher", **_WIDTH)
    outputs: int = setting(1, "size of y", **_WIDTH)
    noise: float = setting(0.0, "standard deviation of the noise on y", least=0, most=1000)


@dataclasses.dataclass
class Text:
    """Text by character or token, each to be predicted from those before it."""

    path: str | None = setting(None, "a UTF-8 file; null: prose that comes with Python")
    tokenizer: str | None = setting(None, "a tokenizer.json of Hugging Face's; null: by character")
    context: int = setting(64, "tokens in a window", least=1, most=1_000_000)
    validation: float = setting(0.1, "share at the end that is held out", **_SHARE)


@dataclasses.dataclass
class Tokens:
    """Numbers of tokens in files, as nanoGPT's scripts prepare them, memory-mapped."""

    path: str | None = setting(
        None, "a folder with train.bin and val.bin, or a file", needed="<folder or file>"
    )
    context: int = setting(64, "tokens in a window", least=1, most=1_000_000)
    validation: float | None = setting(
        None, "share at a file's end that is held out; null: 0.1, or what val.bin holds", **_SHARE
    )
    vocabulary: int | None = setting(
        None, "number of tokens; null: as many as the files show", least=2, most=2**31 - 2
    )
    dtype: str = setting("uint16", "of the tokens in the files", choices=("uint16", "uint32"))


@dataclasses.dataclass
class Split:
    """Parts of data that come in one piece."""

    validation: float = setting(0.1, "share held out for validation", **_SHARE)
    test: float | None = setting(
        None, "share held out for the test; null: 0.2, or the test part there is", **_SHARE
    )
    split_seed: int = setting(0, "seed of the split", **_SEED)


@dataclasses.dataclass
class ImageTransforms:
    """Transforms of images, on the device, in training alone but for the first."""

    normalize: bool = setting(True, "whether mean and deviation of each channel are taken out")
    crop: int = setting(0, "pixels by which an image is moved, at most", **_PIXELS)
    flip: bool = setting(False, "whether left and right are exchanged in every second image")
    cutout: int = setting(0, "side of a square that is cut out, in pixels", **_PIXELS)
    rand_augment: int = setting(0, "strength of two random changes; 0: none", least=0, most=30)
    mixup: float = setting(0.0, "alpha of mixup; 0: none", **_ALPHA)
    cutmix: float = setting(0.0, "alpha of cutmix; 0: none", **_ALPHA)


@dataclasses.dataclass
class Idx(Split, ImageTransforms):
    """MNIST and its family: a folder of IDX files, gzipped or not."""

    path: str | None = setting(None, "the folder", needed="<folder>")


@dataclasses.dataclass
class Cifar(Split, ImageTransforms):
    """CIFAR-10 or CIFAR-100: a folder with the binary version."""

    path: str | None = setting(None, "the folder", needed="<folder>")


@dataclasses.dataclass
class Images(Split, ImageTransforms):
    """A folder of image files, a subfolder for each class; train and test beside each other."""

    path: str | None = setting(None, "the folder", needed="<folder>")
    size: tuple[int, int] = setting((224, 224), "height and width", least=1, most=4096)
    channels: int = setting(3, "3 for colours, 1 for grey", least=1, most=3)
    check: str = setting("refuse", "what happens to bad records", choices=_CHECKS)
    processes: int = setting(
        0, "worker processes that decode; 0: threads of this one", least=0, most=1024
    )


@dataclasses.dataclass
class Npy(Split):
    """A folder with x.npy and y.npy, or an .npz of both, memory-mapped."""

    path: str | None = setting(None, "the folder or file", needed="<folder or file>")
    check: str = setting("refuse", "what happens to bad records", choices=_CHECKS)


@dataclasses.dataclass
class Table(Split):
    """A .csv or .parquet file of numbers, one column of which is predicted."""

    path: str | None = setting(None, "the file", needed="<file.csv or .parquet>")
    target: str | None = setting(None, "the column to predict; null: the last one")


DATA_SETS: dict[str, type] = {
    "digits": Digits,
    "synthetic_images": SyntheticImages,
    "npz": Npz,
    "gaussian": Gaussian,
    "spirals": Spirals,
    "text": Text,
    "idx": Idx,
    "cifar": Cifar,
    "images": Images,
    "npy": Npy,
    "table": Table,
    "tokens": Tokens,
    "sinusoids": Sinusoids,
    "teacher_student": TeacherStudent,
}
"""Choice of data -> its settings."""
