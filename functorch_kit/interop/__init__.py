"""Other libraries' models as ours and ours as theirs; other libraries' weights, in and out.

Flax, Equinox and Haiku are loaded where they are used; ``functorch_kit[interop]``
brings them.
"""

from functorch_kit.interop.equinox import from_equinox, to_equinox
from functorch_kit.interop.errors import InteropError
from functorch_kit.interop.haiku import from_haiku
from functorch_kit.interop.hugging_face import hugging_face
from functorch_kit.interop.hugging_face_settings import hugging_face_settings
from functorch_kit.interop.linen import from_linen, to_linen
from functorch_kit.interop.modes import flags_of
from functorch_kit.interop.nnx import from_nnx, to_nnx
from functorch_kit.interop.safetensors_file import read_safetensors, write_safetensors
from functorch_kit.interop.stored import read_tensors
from functorch_kit.interop.table import Entry, Found, Table
from functorch_kit.interop.torch_file import read_torch
from functorch_kit.interop.torchvision import torchvision
from functorch_kit.interop.weights import load, own_table, read_weights, tables

__all__ = [
    "Entry",
    "Found",
    "InteropError",
    "Table",
    "flags_of",
    "from_equinox",
    "from_haiku",
    "from_linen",
    "from_nnx",
    "hugging_face",
    "hugging_face_settings",
    "load",
    "own_table",
    "read_safetensors",
    "read_tensors",
    "read_torch",
    "read_weights",
    "tables",
    "to_equinox",
    "to_linen",
    "to_nnx",
    "torchvision",
    "write_safetensors",
]
