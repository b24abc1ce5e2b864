"""Memory for blocks of rows, used again once nobody has them any more."""

from __future__ import annotations

import math
import sys
import threading
from typing import Any

import numpy as np

_ALIGNMENT = 64  # from which a CPU device can use an array where it lies
_KEPT = 8


class Rooms:
    """Gives out arrays, and the same memory again when an array and all views of it are gone.

    Fresh memory costs more than what is written into it: the system hands it over page by page,
    each filled with zeros. Whether somebody still has an array is Python's own count of references;
    a device that works on the array in place, or is still copying it, holds one.

    Example:
        >>> rooms = Rooms()
        >>> first = rooms.array((4, 5), np.float32)
        >>> address, first = first.ctypes.data, None
        >>> rooms.array((4, 5), np.float32).ctypes.data == address, address % 64
        (True, 0)
    """

    def __init__(self) -> None:
        self._rooms: list[np.ndarray] = []
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # a worker process has memory of its own

    def __setstate__(self, state: dict[str, Any]) -> None:
        Rooms.__init__(self)

    def array(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array whose values are whatever was there before.

        Args:
            shape: of the array.
            dtype: of its values.
        """
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        with self._lock:
            room = self._free(size + _ALIGNMENT)
            begin = -room.ctypes.data % _ALIGNMENT
            return room[begin : begin + size].view(dtype).reshape(shape)

    def _free(self, size: int) -> np.ndarray:
        for place in range(len(self._rooms)):
            # Two references: the list's, and that of the call itself.
            if self._rooms[place].nbytes == size and sys.getrefcount(self._rooms[place]) == 2:
                return self._rooms[place]
        room = np.empty(size, np.uint8)
        self._rooms = [*self._rooms[-_KEPT + 1 :], room]
        return room
