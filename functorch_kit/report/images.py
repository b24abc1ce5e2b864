"""Small pictures for the page: arrays as PNG data URIs, with the standard library alone."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import numpy as np


def png(image: Any) -> bytes:
    r"""An image as an 8-bit PNG file.

    Args:
        image: shape (H, W) grey, (H, W, 1) grey, (H, W, 3) colour or (H, W, 4) with alpha, values
            from 0 to 1; what lies outside is cut off, NaN is black.

    Returns:
        The file's bytes.

    Raises:
        ValueError: another shape.

    Example:
        >>> png(np.zeros((8, 8)))[:4]
        b'\x89PNG'
    """
    pixels = np.asarray(image, np.float64)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or 0 in pixels.shape:
        raise ValueError(f"an image has shape (H, W) or (H, W, 1, 3 or 4), not {pixels.shape}")
    height, width, channels = pixels.shape
    levels = np.rint(255 * np.clip(np.nan_to_num(pixels), 0.0, 1.0)).astype(np.uint8)
    # Each row of a PNG starts with the number of its filter; 0 is none.
    lines = np.concatenate(
        [np.zeros((height, 1), np.uint8), levels.reshape(height, width * channels)], axis=1
    )
    colour_type = {1: 0, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", header),
            _chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)),
            _chunk(b"IEND", b""),
        )
    )


def data_uri(image: Any) -> str:
    """An image as a ``data:`` address that a page carries in itself.

    Args:
        image: see ``png``.

    Returns:
        The address.

    Raises:
        ValueError: the array is no image.

    Example:
        >>> data_uri(np.zeros((2, 2))).startswith("data:image/png;base64,")
        True
    """
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()


def thumbnail(image: Any, side: int = 64) -> np.ndarray:
    """An image no larger than a side, by taking every n-th pixel: the page holds many of them.

    Args:
        image: shape (H, W) or (H, W, C).
        side: the longest side in pixels.

    Returns:
        The image, thinned out where it was larger.

    Example:
        >>> thumbnail(np.zeros((128, 256, 3)), side=64).shape
        (32, 64, 3)
    """
    pixels = np.asarray(image)
    stride = max(1, -(-max(pixels.shape[:2], default=1) // side)) if pixels.ndim >= 2 else 1
    return pixels[::stride, ::stride] if stride > 1 else pixels


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
