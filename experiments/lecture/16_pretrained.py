"""Example 16: pretrained AlexNet, VGG-16 and ResNet-101: weights from a local file, checksummed.

``--net alexnet --weights FILE`` reads torchvision's weights, or those of a folder that ``--keep``
left; without it, random weights are written into a folder that is removed again, and read back. Our
own files carry SHA-256 sums: weights that changed on the disk are refused, not used.

Command: ``python experiments/lecture/16_pretrained.py [--net alexnet]``. The three nets have a
gigabyte of weights between them; ``--quick`` takes a small net.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import classroom
import jax
import jax.numpy as jnp
import numpy as np

import functorch_kit as fk

NETS: dict[str, tuple[Callable[..., fk.nn.Model], Any]] = {
    "alexnet": (fk.models.alexnet, fk.models.AlexNetConfig()),
    "vgg16": (fk.models.vgg, fk.models.VGGConfig(depth=16)),
    "resnet101": (fk.models.resnet, fk.models.ResNetConfig(depth=101)),
}
EQUAL = "read back, the logits are equal to the bit"
REFUSED = "with one byte changed, the weights are refused"


def small(config: Any) -> fk.nn.Model:
    """What stands in for them in the short form."""
    return fk.nn.serial(
        conv=fk.nn.conv(8, (3, 3), strides=4),
        relu=fk.nn.relu,
        pool=fk.nn.global_avg_pool(),
        head=fk.nn.dense(10),
    )


def keep_weights(folder: Path, weights: Any) -> None:
    """Write a model's parameters and state, with the sums of the files."""
    with fk.checkpoint.Store(folder) as store:
        store.save(0, weights)
        store.wait()


def read_weights(path: Path, config: Any, like: Any) -> Any:
    """Parameters and state as ``keep_weights`` wrote them, or from a file of another library.

    Args:
        path: a folder of ours, or what ``fk.interop.load`` reads.
        config: of the model, which says which tensor of the file is which parameter.
        like: shapes that all of them must fit.
    """
    if path.is_dir() and fk.checkpoint.Store(path).latest() is not None:
        return fk.checkpoint.Store(path).restore(0, like)[0]
    return fk.interop.load(path, config, *like)


def is_refused_when_damaged(folder: Path, like: Any) -> bool:
    """Change one byte of the largest file, and try to read."""
    largest = max((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    with largest.open("r+b") as file:
        middle = largest.stat().st_size // 2
        file.seek(middle)
        byte = file.read(1)[0]
        file.seek(middle)
        file.write(bytes([byte ^ 1]))
    try:
        read_weights(folder, None, like)
    except fk.checkpoint.CheckpointError:
        return True
    return False


def answered(name: str, options: argparse.Namespace) -> tuple[int, float, dict[str, bool]]:
    """Parameters of a net, seconds that it took to read them, and what was found true."""
    make, config = NETS.get(name, (small, None))
    model, side = make(config), 224 if name in NETS else 32
    images = jnp.asarray(np.random.default_rng(0).standard_normal((1, side, side, 3), np.float32))
    like = jax.eval_shape(model.init, jax.random.key(0), images)
    apply = jax.jit(lambda weights, x: model.apply(*weights, x)[0])
    claims: dict[str, bool] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder, expected = (options.keep or Path(temporary)) / name, None
        if options.weights is not None:
            kept = options.weights / name
            folder = kept if kept.is_dir() else options.weights
        else:
            # Run once: compiled with little optimisation.
            quickly = {"xla_backend_optimization_level": 1}
            init = fk.program.compile(
                model.init, jax.random.key(0), images, name="init", compiler_options=quickly
            )
            weights = init(jax.random.key(0), images)
            expected = np.asarray(apply(weights, images))
            keep_weights(folder, weights)
        began = time.perf_counter()
        weights = read_weights(folder, config, like)
        seconds = time.perf_counter() - began
        logits = np.asarray(apply(weights, images))
        claims["the logits are finite"] = bool(np.isfinite(logits).all())
        if expected is not None:
            claims[EQUAL] = classroom.same_bits(logits, expected)
            if options.keep is None:
                claims[REFUSED] = is_refused_when_damaged(folder, like)
    return sum(leaf.size for leaf in jax.tree.leaves(like[0])), seconds, claims


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--net", choices=NETS, help="this one alone")
    parser.add_argument("--weights", type=Path, metavar="PATH", help="read weights from here")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave the weights here")


def example(options: argparse.Namespace) -> classroom.Shown:
    names = [options.net] if options.net else ["small"] if options.quick else [*NETS]
    counts, claims, read = {}, {}, 0.0
    for name in names:
        counts[name], seconds, held = answered(name, options)
        read += seconds
        claims = {claim: holds and claims.get(claim, True) for claim, holds in held.items()}
    figures = {
        "parameters": ", ".join(f"{name} {count:,}" for name, count in counts.items()),
        "seconds to read and check them": read,
    }
    return classroom.Shown(figures, claims)


if __name__ == "__main__":
    sys.exit(classroom.run(example, options=add_options))
