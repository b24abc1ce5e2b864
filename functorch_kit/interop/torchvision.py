"""Tables of torchvision's models: AlexNet, VGG, GoogLeNet, ResNet."""

from __future__ import annotations

from typing import Any

from functorch_kit import models
from functorch_kit.interop.entries import (
    COUNTER,
    RESNET_BLOCKS,
    Entries,
    batch_norm,
    convolution,
    counters,
    dense,
)
from functorch_kit.interop.errors import InteropError
from functorch_kit.interop.layouts import flattened
from functorch_kit.interop.table import Table

_VGG_STAGES = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


def torchvision(config: Any) -> Table:
    """The table of torchvision's model of the same name.

    Its AlexNet, VGG (with batch norm or without), GoogLeNet and ResNet; not its VisionTransformer.

    Args:
        config: of our model: an AlexNetConfig, VGGConfig, InceptionConfig or ResNetConfig.

    Returns:
        A Table. GoogLeNet's published weights want ``transform_input=True``, as torchvision sets it
        itself; its two auxiliary heads are passed over where the config has none.

    Raises:
        InteropError: torchvision has no such model.

    Example:
        >>> from functorch_kit import models
        >>> table = torchvision(models.ResNetConfig(depth=18))
        >>> table.name, table.entries[0].theirs, table.entries[0].ours
        ('torchvision resnet18', 'conv1.weight', ('params/stem/conv/kernel',))
    """
    match config:
        case models.AlexNetConfig():
            return _alexnet()
        case models.VGGConfig():
            return _vgg(config)
        case models.InceptionConfig():
            return _googlenet(config)
        case models.ResNetConfig(is_preactivation=False):
            return _resnet(config)
        case _:
            raise InteropError(f"torchvision: there is no table for {config!r:.100}")


def _alexnet() -> Table:
    entries: Entries = ()
    for index, place in enumerate((0, 3, 6, 8, 10)):
        entries += convolution(f"features.{place}", f"features/conv_{index}", use_bias=True)
    entries += dense("classifier.1", "classifier/dense_0", layout=flattened(256, 6, 6))
    entries += dense("classifier.4", "classifier/dense_1")
    entries += dense("classifier.6", "classifier/head")
    return Table("torchvision alexnet", entries, heads=("params/classifier/head",))


def _vgg(config: models.VGGConfig) -> Table:
    entries: Entries = ()
    place = 0
    for stage, count in enumerate(_VGG_STAGES[config.depth]):
        for index in range(count):
            ours = f"stages/{stage}/conv_{index}"
            entries += convolution(f"features.{place}", ours, use_bias=True)
            if config.use_norm:
                entries += batch_norm(f"features.{place + 1}", f"stages/{stage}/norm_{index}")
            place += 3 if config.use_norm else 2  # a ReLU follows
        place += 1  # and a pool
    entries += dense("classifier.0", "classifier/dense_0", layout=flattened(512, 7, 7))
    entries += dense("classifier.3", "classifier/dense_1")
    entries += dense("classifier.6", "classifier/head")
    return Table(
        f"torchvision vgg{config.depth}{'_bn' * config.use_norm}",
        entries,
        passed_over=(COUNTER,),
        constants=counters(entries),
        heads=("params/classifier/head",),
    )


def _googlenet(config: models.InceptionConfig) -> Table:
    def unit(theirs: str, ours: str) -> Entries:
        return convolution(f"{theirs}.conv", f"{ours}/conv") + batch_norm(
            f"{theirs}.bn", f"{ours}/norm"
        )

    entries: Entries = ()
    for index in range(3):
        entries += unit(f"conv{index + 1}", f"conv_{index}")
    for module in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
        theirs = f"inception{module}"
        entries += unit(f"{theirs}.branch1", f"{module}/branch_0")
        for branch in (1, 2):
            for index in range(2):
                entries += unit(
                    f"{theirs}.branch{branch + 1}.{index}", f"{module}/branch_{branch}/{index}"
                )
        entries += unit(f"{theirs}.branch4.1", f"{module}/branch_3/1")
    entries += dense("fc", "head/dense")
    passed_over: tuple[str, ...] = (COUNTER,)
    if config.auxiliary:
        for index in range(2):
            theirs, ours = f"aux{index + 1}", f"auxiliary_{index}"
            entries += unit(f"{theirs}.conv", f"{ours}/conv")
            entries += dense(f"{theirs}.fc1", f"{ours}/dense", layout=flattened(128, 4, 4))
            entries += dense(f"{theirs}.fc2", f"{ours}/head")
    else:
        passed_over += ("aux1.*", "aux2.*")
    return Table(
        "torchvision googlenet",
        entries,
        passed_over=passed_over,
        constants=counters(entries),
        heads=("params/head/dense", "params/auxiliary_0/head", "params/auxiliary_1/head"),
        optional=tuple(
            f"{branch}/auxiliary_{index}"
            for branch in ("params", "model_state")
            for index in range(2)
        ),
    )


def _resnet(config: models.ResNetConfig) -> Table:
    is_bottleneck = config.depth >= 50
    entries = convolution("conv1", "stem/conv") + batch_norm("bn1", "stem/norm")
    for stage, count in enumerate(RESNET_BLOCKS[config.depth]):
        for block in range(count):
            theirs = f"layer{stage + 1}.{block}"
            ours = f"stages/{stage}/blocks/{block}"
            for index in range(3 if is_bottleneck else 2):
                entries += convolution(f"{theirs}.conv{index + 1}", f"{ours}/body/conv_{index}")
                entries += batch_norm(f"{theirs}.bn{index + 1}", f"{ours}/body/norm_{index}")
            if block == 0 and (stage > 0 or is_bottleneck):
                entries += convolution(f"{theirs}.downsample.0", f"{ours}/shortcut/conv")
                entries += batch_norm(f"{theirs}.downsample.1", f"{ours}/shortcut/norm")
    entries += dense("fc", "head")
    return Table(
        f"torchvision resnet{config.depth}",
        entries,
        passed_over=(COUNTER,),
        constants=counters(entries),
        heads=("params/head",),
    )
