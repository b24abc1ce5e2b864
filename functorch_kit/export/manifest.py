"""What an artifact says of itself: signature, files and their SHA-256, versions, expiry.

Everything is read from a closed list of names with known types and limits. No name in it is a path,
and nothing in it is looked up, imported or run.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from functorch_kit.data import Inputs
from functorch_kit.export import fields
from functorch_kit.export.errors import ArtifactError
from functorch_kit.untrusted import MOST_JSON, FileError, parse_json, read_plain

NAME = "manifest.json"
PROGRAM, PARAMS, ONNX, TOKENIZER = (
    "program.bin", "params.safetensors", "model.onnx", "tokenizer.json",
)  # fmt: skip
FORMATS = {
    "stablehlo": (PROGRAM, PARAMS),
    "onnx": (ONNX,),
    "safetensors": (PARAMS,),
    "hugging_face": ("model.safetensors", "config.json"),
}
"""Format -> the files that its folder holds, beside the manifest and perhaps a tokenizer."""
TASKS = ("classification", "regression", "language model", "")
_DTYPES = (
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16",
    "bfloat16", "float32", "float64", "complex64", "complex128",
)  # fmt: skip
_MOST_SIDE = 1 << 24
_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One array that goes in or comes out.

    Attributes:
        name: ``x``, or ``x/tokens`` where there are several; ``y`` likewise.
        shape: a number, or a word such as ``batch`` for any.
        dtype: of its numbers.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str

    def __str__(self) -> str:
        """``float32(batch, 8, 8, 1)``."""
        return f"{self.dtype}({', '.join(map(str, self.shape))})"


@dataclasses.dataclass(frozen=True)
class File:
    """Size and SHA-256 of a file as it was written."""

    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What an artifact is, and what it takes to use it.

    Attributes:
        format: ``stablehlo``, ``onnx``, ``safetensors``, or ``hugging_face``.
        created: day on which it was made.
        expires: last day on which its program is run; None: it does not expire.
        versions: of the libraries that made it.
        inputs: what goes in, raw: the program prepares it.
        outputs: what comes out: logits of classes and tokens, numbers of a regression.
        records: what one record is, and what the program makes of it.
        files: name -> size and SHA-256.
        platforms: that the program was lowered for.
        gradients: orders of derivatives that it carries.
        calling_convention: of ``jax.export``.
        task: ``classification``, ``regression``, ``language model``, or nothing.
        classes: their names.
        vocabulary: of a language model, as ``data.vocabulary_from`` takes it; a tokenizer's content
            is in a file of its own.
        source: where it comes from: run, step.
    """

    format: str
    created: str
    expires: str | None
    versions: Mapping[str, str]
    inputs: tuple[Leaf, ...]
    outputs: tuple[Leaf, ...]
    records: Inputs
    files: Mapping[str, File]
    platforms: tuple[str, ...] = ()
    gradients: int = 0
    calling_convention: int = 0
    task: str = ""
    classes: tuple[str, ...] = ()
    vocabulary: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    source: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def has_expired(self, today: datetime.date) -> bool:
        """Whether its last day is past."""
        return self.expires is not None and today > datetime.date.fromisoformat(self.expires)


def write(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, sealed with its own SHA-256.

    Raises:
        ArtifactError: it says what no reader would take, such as a class name that cannot be
            printed.
    """
    content = {"version": _VERSION, **dataclasses.asdict(manifest)}
    content["records"] = manifest.records.to_dict()
    text = _seal(content)
    try:
        _read(parse_json(text, "the manifest")["content"], "the manifest")
    except (FileError, fields.FieldError) as error:
        raise ArtifactError(f"the artifact cannot be written: {error}") from None
    (folder / NAME).write_bytes(text)


def file_of(path: Path) -> File:
    """Size and SHA-256 of a file that was just written."""
    with open(path, "rb") as file:
        return File(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def read(folder: str | Path) -> Manifest:
    """The manifest of an artifact, checked in every field.

    Raises:
        ArtifactError: no artifact, or one whose manifest is damaged or no manifest.

    Example:
        >>> import tempfile
        >>> try:
        ...     read(tempfile.gettempdir())
        ... except ArtifactError as error:
        ...     print(str(error).rpartition("'")[2])
         is no artifact: it has no manifest.json
    """
    folder = Path(folder)
    name = repr(str(folder))
    if not folder.is_dir():
        raise ArtifactError(f"artifact {name} does not exist: give the folder that export.py wrote")
    path = folder / NAME
    if not path.exists() and not path.is_symlink():
        raise ArtifactError(f"{name} is no artifact: it has no {NAME}")
    what = f"manifest {str(path)!r}"
    try:
        text = read_plain(path, most=MOST_JSON).tobytes()
        sealed = parse_json(text, what)
        content = sealed.get("content") if isinstance(sealed, dict) else None
        if not isinstance(content, dict) or _seal(content) != text:
            raise ArtifactError(f"{what} is damaged: fetch or export the artifact again")
        return _read(content, what)
    except (FileError, fields.FieldError) as error:
        raise ArtifactError(f"{what}: {error}" if what not in str(error) else str(error)) from None


def read_file(folder: str | Path, manifest: Manifest, name: str) -> Any:
    """The bytes of one of its files, compared with what was written before anybody sees them.

    Args:
        folder: of the artifact.
        manifest: its own.
        name: one of the names of ``FORMATS``, never one that a file says.

    Raises:
        FileError: it is not what was written.
    """
    listed = manifest.files[name]
    return read_plain(Path(folder) / name, size=listed.bytes, sha256=listed.sha256)


def _seal(content: Mapping[str, Any]) -> bytes:
    # A line for each entry, for people.
    entries = ",\n".join(f"{json.dumps(key)}: {json.dumps(v)}" for key, v in content.items())
    body = f"{{\n{entries}\n}}"
    digest = hashlib.sha256(body.encode()).hexdigest()
    return f'{{"sha256": "{digest}",\n"content": {body}}}\n'.encode()


def _read(content: Mapping[str, Any], what: str) -> Manifest:
    version = fields.count(content, "version")
    if version != _VERSION:
        raise ArtifactError(
            f"{what} is of version {version}, and version {_VERSION} is read here:"
            " install the functorch_kit that wrote it"
        )
    known = {field.name for field in dataclasses.fields(Manifest)}
    fields.closed(content, known | {"version"})
    chosen = fields.choice(content, "format", tuple(FORMATS))
    vocabulary = _vocabulary(fields.names(content, "vocabulary"))
    allowed = {*FORMATS[chosen]} | ({TOKENIZER} if vocabulary.get("kind") == "tokenizer" else set())
    made = Manifest(
        format=chosen,
        created=fields.day(content, "created"),
        expires=None if content.get("expires") is None else fields.day(content, "expires"),
        versions={
            name: fields.text(fields.names(content, "versions"), name)
            for name in fields.names(content, "versions")
        },
        inputs=_leaves(content, "inputs"),
        outputs=_leaves(content, "outputs"),
        records=_records(fields.names(content, "records")),
        files=_files(fields.names(content, "files"), allowed),
        platforms=fields.texts(content, "platforms"),
        gradients=fields.count(content, "gradients"),
        calling_convention=fields.count(content, "calling_convention"),
        task=fields.choice(content, "task", TASKS),
        classes=fields.texts(content, "classes"),
        vocabulary=vocabulary,
        source=_source(fields.names(content, "source")),
    )
    for leaf in made.inputs[:1] if len(made.inputs) == 1 else ():
        if leaf.shape[1:] != made.records.shape or leaf.dtype != made.records.dtype:
            raise fields.FieldError("its records are others than its program takes")
    return made


def _leaves(content: Mapping[str, Any], name: str) -> tuple[Leaf, ...]:
    made: list[Leaf] = []
    for entry in fields.entries(content, name):
        fields.closed(entry, {"name", "shape", "dtype"})
        shape = tuple(fields.side(side, name) for side in fields.entries(entry, "shape", kind=None))
        made.append(Leaf(fields.text(entry, "name"), shape, fields.choice(entry, "dtype", _DTYPES)))
    return tuple(made)


def _records(values: Mapping[str, Any]) -> Inputs:
    fields.closed(values, {field.name for field in dataclasses.fields(Inputs)})
    shape = [fields.side(side, "shape") for side in fields.entries(values, "shape", kind=None)]
    if not all(isinstance(side, int) and side <= _MOST_SIDE for side in shape) or len(shape) > 8:
        raise fields.FieldError("the shape of a record is no list of a few whole numbers")
    return Inputs(
        fields.choice(values, "kind", ("array", "image", "table", "text")),
        tuple(side for side in shape if isinstance(side, int)),
        fields.choice(values, "dtype", ("", *_DTYPES)),
        fields.numbers(values, "mean"),
        fields.numbers(values, "deviation"),
        fields.texts(values, "columns"),
    )


def _files(values: Mapping[str, Any], allowed: set[str]) -> dict[str, File]:
    if set(values) != allowed:
        raise fields.FieldError(f"it lists other files than {', '.join(sorted(allowed))}")
    found: dict[str, File] = {}
    for name in sorted(allowed):
        entry = fields.names(values, name)
        fields.closed(entry, {"bytes", "sha256"})
        found[name] = File(fields.count(entry, "bytes"), fields.digest(entry, "sha256"))
    return found


def _vocabulary(values: Mapping[str, Any]) -> dict[str, Any]:
    match values.get("kind"):
        case None:
            fields.closed(values, set())
            return {}
        case "characters":
            fields.closed(values, {"kind", "characters"})
            characters = fields.text(values, "characters", printable=False)
            return {"kind": "characters", "characters": characters}
        case "numbers":
            fields.closed(values, {"kind", "size"})
            return {"kind": "numbers", "size": fields.count(values, "size")}
        case "tokenizer":
            fields.closed(values, {"kind", "sha256"})
            return {"kind": "tokenizer", "sha256": fields.digest(values, "sha256")}
        case _:
            raise fields.FieldError("its vocabulary is of no known kind")


def _source(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: fields.count(values, name) if type(value) is int else fields.text(values, name)
        for name, value in values.items()
    }
