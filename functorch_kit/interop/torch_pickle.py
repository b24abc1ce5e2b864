"""The table of tensors in a PyTorch file, read without running anything: no pickle is loaded.

PyTorch writes it as a program for Python's pickle machine. Here is a machine of a third of its
instructions, enough for a dict of tensors, in which the few functions such a file names stand for
plain records; whatever else a file asks for is refused by name.
"""

from __future__ import annotations

import pickletools
from io import BufferedIOBase
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from functorch_kit.interop.errors import InteropError

MOST_BYTES = 16 << 20
_LONGEST_NAME = 256
# A tensor takes 40 of them. Each may make an object of 100 bytes, and takes some microseconds.
MOST_INSTRUCTIONS = 500_000
_DTYPES: dict[str, Any] = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


class Storage(NamedTuple):
    """A row of numbers in the file: its dtype, its name there, and how many it has."""

    dtype: np.dtype
    key: str
    length: int


class StoredTensor(NamedTuple):
    """A tensor as a window on a storage; offset and strides are in numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Name(NamedTuple):
    """A function or class that the file names; it is never looked up."""

    name: str


class _Bounded:
    """A stream of which no more than so many bytes are read, and none are asked for in vain."""

    def __init__(self, stream: BufferedIOBase, most: int):
        self._stream, self._left = stream, most

    def read(self, count: int) -> bytes:
        if not 0 <= count <= self._left:
            raise ValueError("it is too long")
        self._left -= count
        return self._stream.read(count)

    def readline(self) -> bytes:
        return self._stream.readline(_LONGEST_NAME)


_MARK = object()
_PUSHED = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NUMBERS_AND_TEXT = (
    "BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINSTRING "
    "SHORT_BINSTRING"
).split()
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_BUILT = {
    "collections OrderedDict",
    "torch Size",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_tensor",
    "torch._utils _rebuild_tensor_v2",
}


def read_table(stream: BufferedIOBase, storages: dict[str, Storage] | None = None) -> Any:
    """The object that a pickle of PyTorch's describes, made of dicts, lists and StoredTensors.

    Args:
        stream: stands at its beginning, and behind its end afterwards.
        storages: takes up every storage that is met, by its key.

    Raises:
        InteropError: it is damaged, too long, or asks for anything but tensors.

    Example:
        >>> import fractions, io, pickle
        >>> read_table(io.BytesIO(pickle.dumps({"epoch": 3}, protocol=2)))
        {'epoch': 3}
        >>> read_table(io.BytesIO(pickle.dumps(fractions.Fraction(1, 2), protocol=2)))
        Traceback (most recent call last):
        functorch_kit...InteropError: the file asks for 'fractions Fraction', which is no tensor
    """
    machine = _Machine({} if storages is None else storages)
    try:
        instructions = pickletools.genops(_Bounded(stream, MOST_BYTES))  # type: ignore[arg-type]
        for count, (instruction, argument, _) in enumerate(instructions):
            if count > MOST_INSTRUCTIONS:
                raise ValueError("it is too long")
            if instruction.name == "STOP":
                return machine.stack.pop()
            machine.step(instruction.name, argument)
    except InteropError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        cause = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise InteropError(f"its table of tensors cannot be read: {cause}") from None
    raise InteropError("its table of tensors has no end")


class _Machine:
    def __init__(self, storages: dict[str, Storage]) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages = storages

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        match name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                stack.append(_MARK)
            case _ if name in _PUSHED:
                stack.append(_PUSHED[name])
            case _ if name in _NUMBERS_AND_TEXT:
                stack.append(argument)
            case _ if name in _EMPTY:
                stack.append(_EMPTY[name]())
            case _ if name in _TUPLES:
                count = _TUPLES[name]
                stack[-count:] = [tuple(stack[-count:])]
            case "TUPLE":
                stack.append(tuple(self._above_mark()))
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "GLOBAL":
                stack.append(_Name(argument))
            case "STACK_GLOBAL":
                attribute, module = _of(str, stack.pop()), _of(str, stack.pop())
                stack.append(_Name(f"{module} {attribute}"))
            case "BINPERSID":
                storage = _storage(stack.pop())
                self.storages[storage.key] = storage
                stack.append(storage)
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_built(function, arguments))
            case "BUILD":
                stack.pop()  # attributes of a dict: versions of layers, nothing of the tensors
            case "APPEND" | "APPENDS":
                values = self._above_mark() if name == "APPENDS" else [stack.pop()]
                _of(list, stack[-1]).extend(values)
            case "SETITEM" | "SETITEMS":
                pairs = self._above_mark() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
                for key, value in zip(pairs[::2], pairs[1::2], strict=True):
                    # Not a tuple: 60 tuples of tuples are hashed, as they are written, for ever.
                    _of(dict, stack[-1])[_of((str, int), key)] = value
            case _:
                raise InteropError(f"the file has the instruction {name}, which no tensor needs")

    def _above_mark(self) -> list[Any]:
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is _MARK:
                above = self.stack[place + 1 :]
                del self.stack[place:]
                return above
        raise ValueError("a mark is missing")


def _of(kind: Any, value: Any) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"a {type(value).__name__} stands where none may")
    return value


def _storage(identity: Any) -> Storage:
    word, kind, key, _, count, *rest = _of(tuple, identity)
    name = _of(_Name, kind).name.rpartition(" ")[2]
    if word != "storage" or name not in _DTYPES or any(each is not None for each in rest):
        raise InteropError(f"the file keeps numbers as {name!r}, which cannot be read")
    return Storage(np.dtype(_DTYPES[name]), _of(str, key), _size(count))


def _built(function: Any, arguments: Any) -> Any:
    name = _of(_Name, function).name
    if name not in _BUILT:
        raise InteropError(f"the file asks for {name[:100]!r}, which is no tensor")
    arguments = _of(tuple, arguments)
    match name.rpartition(" ")[2]:
        case "OrderedDict" if arguments == ():
            return {}
        case "Size":
            return _sizes(arguments[0])
        case "_rebuild_parameter":
            return _of(StoredTensor, arguments[0])
        case "_rebuild_tensor" | "_rebuild_tensor_v2":
            storage, offset, shape, strides = arguments[:4]
            if not isinstance(storage, Storage):
                raise ValueError("a tensor has no numbers")
            shape, strides = _sizes(shape), _sizes(strides)
            return StoredTensor(storage, _size(offset), shape, strides)
        case _:
            raise ValueError("a dict is made of something")


def _size(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError("a size is no whole number from 0 up")
    return value


def _sizes(values: Any) -> tuple[int, ...]:
    return tuple(_size(each) for each in _of((tuple, list), values))
