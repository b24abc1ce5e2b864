"""CPU against GPU: a matrix product and a convolution on every backend there is, by size.

Few fast cores against many slow ones: small work is done sooner by a CPU, large work by a GPU. On a
machine with a CPU alone that one is drawn, and the other is said to be missing.

Command: ``python experiments/lecture/cpu_and_gpu.py``
"""

import argparse
import functools
import sys
from collections.abc import Callable
from typing import Any

import classroom
import jax
import jax.numpy as jnp
import numpy as np
import pictures

import functorch_kit as fk

PLATFORMS = ("cpu", "gpu", "tpu")
CHANNELS, BATCH = 64, 16


def backends() -> dict[str, Any]:
    """Platform -> its first device, of those that are here."""
    found: dict[str, Any] = {}
    for platform in PLATFORMS:
        try:
            found[platform] = jax.devices(platform)[0]
        except RuntimeError:  # JAX has no such backend here
            continue
    return found


def product(size: int) -> tuple[Callable[..., Any], list[np.ndarray]]:
    """Two square matrices, multiplied."""
    random = np.random.default_rng(size)
    return jnp.matmul, [random.standard_normal((size, size), np.float32) for _ in range(2)]


def convolution(size: int) -> tuple[Callable[..., Any], list[np.ndarray]]:
    """A 3 × 3 convolution of 64 channels into 64, over 16 images."""
    random = np.random.default_rng(size)
    images = random.standard_normal((BATCH, size, size, CHANNELS), np.float32)
    kernel = random.standard_normal((3, 3, CHANNELS, CHANNELS), np.float32)
    layout = ("NHWC", "HWIO", "NHWC")
    convolve = functools.partial(
        jax.lax.conv_general_dilated, window_strides=(1, 1), padding="SAME",
        dimension_numbers=layout,
    )  # fmt: skip
    return convolve, [images, kernel]


WORKS = {"matrix product": product, "convolution": convolution}
SIZES = {
    "matrix product": (32, 64, 128, 256, 512, 1024, 2048),
    "convolution": (4, 8, 16, 32, 64, 112),
}
QUICK = {"matrix product": (16, 32), "convolution": (4, 8)}


def example(options: argparse.Namespace) -> classroom.Shown:
    devices, rows = backends(), []
    results: dict[tuple[str, int], list[np.ndarray]] = {}
    for work, sizes in (QUICK if options.quick else SIZES).items():
        for size in sizes:
            function, arrays = WORKS[work](size)
            operations = fk.program.flops(function, *arrays)
            for platform, device in devices.items():
                there = jax.device_put(arrays, device)
                jitted = jax.jit(function)
                rounds, sample = (2, 1e-3) if options.quick else (5, 0.02)
                timing = fk.program.measure(jitted, *there, rounds=rounds, sample_seconds=sample)
                seconds = timing.median
                results.setdefault((work, size), []).append(np.asarray(jitted(*there)))
                rows.append(
                    {
                        "work": work,
                        "size": size,
                        "platform": platform,
                        "ms": seconds * 1e3,
                        "gflops": operations / seconds / 1e9,
                    }
                )
    panels = [
        pictures.Panel(
            work,
            "rows and columns" if work == "matrix product" else "side of an image, in pixels",
            "milliseconds",
            {
                f"{platform} ({device.device_kind})": _points(rows, work, platform)
                for platform, device in devices.items()
            },
        )
        for work in WORKS
    ]
    missing = [platform for platform in ("gpu",) if platform not in devices]
    figures = {
        f"{row['work']} {row['size']}, {row['platform']}": (
            f"{row['ms']:.4g} ms, {row['gflops']:.3g} GFLOP/s"
        )
        for row in rows
    }
    figures["not here, not drawn"] = ", ".join(missing) or "nothing"
    figures["picture"] = pictures.leave(options.folder, "cpu_and_gpu", panels, rows)
    claims = {
        "each backend computes the same": all(
            classroom.difference(one, found[0]) < 1e-2
            for found in results.values()
            for one in found
        ),
    }
    return classroom.Shown(figures, claims, {"rows": rows})


def _points(rows: list[Any], work: str, platform: str) -> tuple[list[float], list[float]]:
    chosen = [row for row in rows if row["work"] == work and row["platform"] == platform]
    return [row["size"] for row in chosen], [row["ms"] for row in chosen]


def add_options(parser: argparse.ArgumentParser) -> None:
    pictures.add_folder(parser, "cpu-and-gpu")


if __name__ == "__main__":
    sys.exit(classroom.run(example, options=add_options))
