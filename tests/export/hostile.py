"""Two hundred files that mean harm, the same on every machine: ``write(folder)`` makes them.

Each is something to be refused: code that waits to be unpickled, sizes that are not there, numbers
that overflow, places that overlap, links that lead elsewhere, images that fill the memory.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from functorch_kit import safetensors
from functorch_kit.export import manifest as manifests


class Case(NamedTuple):
    """A file or an artifact's folder, and by which reader it is read."""

    name: str
    kind: str
    path: Path


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.marker), "w")


def tensors_file(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with any header, of any length that it claims."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _one(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8), **more: Any) -> dict:
    entry = {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}
    return {"a": entry}


def _bomb() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("x.npy", bytes(64 << 20))
    return content.getvalue()


def hostile_tensors(marker: Path) -> Iterator[tuple[str, bytes]]:
    """Files of arrays."""
    eight = bytes(8)
    for size in range(8):
        yield f"only_{size}_bytes", eight[:size]
    for length in (1, 3, 2**20, 2**32, 2**63 - 1, 2**63, 2**64 - 1):
        yield f"header_of_{length}", tensors_file(b"{}", length=length)
    yield "header_that_is_the_file", tensors_file(b"{}" + b" " * (5 << 20))
    for name, text in {
        "no_json": b"{", "list": b"[]", "number": b"1", "text": b'"a"', "nothing": b"",
        "no_utf8": b'{"\xff": 1}', "nan": b'{"a": NaN}', "infinite": b'{"a": Infinity}',
        "deep_lists": b"[" * 100_000, "deep_names": b'{"a":' * 100_000,
        "many_lists": b"[" + b"[]," * 1_000_000 + b"[]]",
        "many_names": b"{" + b",".join(b'"%d":{}' % n for n in range(200_000)) + b"}",
        "digits": b'{"a": ' + b"9" * 5000 + b"}", "exponent": b'{"a": 1e999999999}',
        "half_pair": b'{"\\ud800": 1}', "twice": b'{"a": 1, "a": 2}', "zero": b"\0" * 64,
        "two_values": b"{} {}", "comma": b'{"a": 1,}', "comment": b"{/* */}",
    }.items():  # fmt: skip
        yield f"header_{name}", tensors_file(text)
    shapes: list[Any] = [
        [3], [1], [-2], [2.0], ["2"], [None], [True, 2], 2, "2", None, {}, [2**62, 2**62],
        [2**63], [2**64, 0], [2**40, 2**40, 0], [1] * 33, [10**4000], [[2]], [2, 0, 2**60],
    ]  # fmt: skip
    for number, shape in enumerate(shapes):
        yield f"shape_{number}", tensors_file(_one(shape=shape), eight)
    offsets: list[Any] = [
        [0, 7], [0, 9], [8, 0], [-8, 0], [1, 9], [0, 2**63], [2**63, 2**63 + 8], [0, 8, 8], [8],
        None, [0.0, 8.0], ["0", "8"], [True, 8], [2**64, 2**64 + 8],
    ]  # fmt: skip
    for number, places in enumerate(offsets):
        yield f"offsets_{number}", tensors_file(_one(offsets=places), eight)
    for dtype in ("f32", "O", "object", "V8", "F128", "U4", "", None, 32, ["F32"], "F32\0"):
        yield f"dtype_{dtype!s:.6}".replace("\0", "0"), tensors_file(_one(dtype), eight)
    yield "entry_with_more", tensors_file(_one(run="os.system"), eight)
    yield "entry_with_less", tensors_file({"a": {"dtype": "F32", "shape": [2]}}, eight)
    yield "entry_that_is_a_list", tensors_file({"a": ["F32", [2], [0, 8]]}, eight)
    yield "metadata_of_numbers", tensors_file({"__metadata__": {"a": 1}})
    yield "metadata_that_is_a_list", tensors_file({"__metadata__": ["a"]})
    two = {"a": _one()["a"], "b": _one(offsets=(4, 12))["a"]}
    yield "overlap", tensors_file(two, bytes(12))
    yield "same_place", tensors_file({"a": _one()["a"], "b": _one()["a"]}, eight)
    yield "gap", tensors_file({"a": _one()["a"], "b": _one(offsets=(16, 24))["a"]}, bytes(24))
    yield "gap_before_all", tensors_file(_one(offsets=(8, 16)), bytes(16))
    yield "bytes_of_nobody", tensors_file(_one(), bytes(9))
    yield "truth_of_two", tensors_file(_one("BOOL", (2,), (0, 2)), b"\1\2")
    yield "pickle", pickle.dumps(Evil(marker))
    yield "zip_bomb", _bomb()


def _npy(descr: str, shape: str, data: bytes = b"", order: str = "False", version: int = 1):
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + data


def hostile_arrays(marker: Path) -> Iterator[tuple[str, bytes]]:
    """Files that call themselves .npy."""
    evil = io.BytesIO()
    np.save(evil, np.array([Evil(marker)], object), allow_pickle=True)
    yield "objects", evil.getvalue()
    yield "pickle", pickle.dumps(Evil(marker))
    yield "zip_bomb", _bomb()
    code = f"open({str(marker)!r}, 'w')"
    good = bytes(24)
    yield "code_for_a_dtype", _npy(code, "(1, 2, 3)", good)
    yield "code_for_a_shape", _npy("'<f4'", f"({code},)", good)
    for number, shape in enumerate((
        "(2, 2, 3)", "(1000000000, 2, 3)", "(4611686018427387904, 2, 3)", "(-1, 2, 3)", "(1, 6)",
        "(0, 2, 3)", "(1, 2, 3, 0)", "()", "(1.0, 2, 3)", "[1, 2, 3]", "6", "None", "('1', 2, 3)",
        f"({'(' * 300}{')' * 300},)", f"({'-' * 20000}1,)", f"({'1,' * 20000})",
        f"({'-1,' * 9000})",
    )):  # fmt: skip
        if shape != "[1, 2, 3]":
            yield f"shape_{number}", _npy("'<f4'", shape, good)
    for number, descr in enumerate((
        "'O'", "'|V4'", "'<U1'", "'<M8[s]'", "[('a', '<f4')]", "'(1000000,1000000)f4'", "'<c8'",
        "'<i4'", "''", "3", "None", "'<f999999999'", str([(str(n), '<f4') for n in range(2000)]),
    )):  # fmt: skip
        yield f"dtype_{number}", _npy(descr, "(1, 2, 3)", good)
    yield "columns_first", _npy("'<f4'", "(1, 2, 3)", good, order="True")
    yield "cut_short", _npy("'<f4'", "(1, 2, 3)", good[:-1])
    yield "no_header", b"\x93NUMPY\1\0"
    yield "header_of_gigabytes", b"\x93NUMPY\2\0\xff\xff\xff\xff{"
    yield "no_magic", b"NUMPY" + good
    yield "not_finite", _npy("'<f4'", "(1, 2, 3)", struct.pack("<6f", *[float("nan")] * 6))


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def png(width: int, height: int, pixels: bytes, *more: bytes) -> bytes:
    """A PNG of any size that it claims."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [_chunk(b"IHDR", head), *more, _chunk(b"IDAT", zlib.compress(pixels, 9))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + _chunk(b"IEND", b"")


def hostile_images(marker: Path) -> Iterator[tuple[str, bytes]]:
    """Files with the ending of an image; the first word is the ending."""
    for side in (5_000, 20_000, 60_000, 2**31 - 1):
        yield f"png:of_{side}_squared", png(side, side, bytes(1000))
    yield "png:that_fills_memory", png(20_000, 20_000, bytes(40 << 20))
    yield "png:without_pixels", png(4, 4, b"")
    yield "png:of_nothing", png(0, 0, b"")
    yield (
        "png:with_a_long_text",
        png(4, 4, b"", _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200 << 20)))),
    )
    yield "png:cut_short", png(4, 4, bytes(52))[:40]
    postscript = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({marker}) (w) file\n%%EOF\n"
    yield "png:postscript", postscript.encode()
    yield "jpg:postscript", postscript.encode()
    yield "png:pickle", pickle.dumps(Evil(marker))
    yield "png:zip_bomb", _bomb()
    yield "gif:of_65535_squared", b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b","
    yield (
        "bmp:of_60000_squared",
        b"BM"
        + struct.pack(
            "<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0
        ),
    )
    yield "ppm:of_60000_squared", b"P6\n60000 60000\n255\n" + bytes(100)
    yield "ppm:of_many_digits", b"P6\n" + b"9" * 10_000 + b" 1\n255\n"
    yield (
        "jpg:of_65535_squared",
        b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03\1\x11\0\2\x11\0\3\x11\0",
    )
    yield "tif:of_60000_squared", _tiff(60_000, 60_000)
    yield "webp:cut_short", b"RIFF\xff\xff\xff\x7fWEBPVP8L\xff\xff\xff\x7f/\xff\xff\xff\xff"
    yield "png:of_no_bytes", b""


def _tiff(width: int, height: int) -> bytes:
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1),
            (262, 3, 1, 1), (273, 4, 1, 200), (277, 3, 1, 1), (278, 4, 1, height),
            (279, 4, 1, 100)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(300)


def hostile_texts() -> Iterator[tuple[str, str, bytes]]:
    """Tables and texts: kind, name and content."""
    for name, content in {
        "of_no_bytes": b"", "of_other_columns": b"c,d\n1,2\n", "with_a_short_row": b"a,b\n1\n",
        "with_a_long_row": b"a,b\n1,2,3\n", "with_words": b"a,b\n1,x\n",
        "with_nan": b"a,b\n1,nan\n",
        "with_infinity": b"a,b\n1,inf\n", "beyond_float32": b"a,b\n1,1e39\n",
        "with_a_formula": b"a,b\n1,=1+1\n", "with_code": b"a,b\n1,__import__('os')\n",
        "with_an_open_quote": b'a,b\n"1,2\n', "with_a_quote_inside": b'a,b\n"1"x,2\n',
        "of_one_line": b"a,b," * 1_000_000, "of_one_cell": b"a,b\n1," + b"9" * 200_000,
        "of_digits": b"a,b\n1," + b"9" * 1000, "not_in_utf8": b"a,b\n1,\xff\n",
        "of_zeros": bytes(1000), "of_quotes": b'a,b\n"' + b'""' * 600_000,
        "of_lines_in_quotes": b"a,b\n" + b'"\n",' * 100_000,
    }.items():  # fmt: skip
        yield "table", f"table_{name}", content
    for name, content in {
        "of_other_letters": b"abx\n", "not_in_utf8": b"ab\xff\n", "of_one_line": b"a" * (3 << 20),
        "of_zeros": bytes(100),
    }.items():  # fmt: skip
        yield "text", f"text_{name}", content


def sealed(content: dict[str, Any]) -> bytes:
    """A manifest with the right seal, whatever it says."""
    return manifests._seal(content)


def good_artifact(folder: Path) -> dict[str, Any]:
    """Write what looks like an artifact; its program is never read."""
    folder.mkdir(parents=True)
    (folder / manifests.PROGRAM).write_bytes(b"no program")
    safetensors.write(folder / manifests.PARAMS, {"params/a": np.zeros(2, np.float32)})
    files = {name: manifests.file_of(folder / name) for name in manifests.FORMATS["stablehlo"]}
    content = {
        "version": 1, "format": "stablehlo", "created": "2026-11-21", "expires": "2999-01-01",
        "versions": {"jax": "0.4.1"},
        "inputs": [{"name": "x", "shape": ["batch", 2], "dtype": "float32"}],
        "outputs": [{"name": "y", "shape": ["batch", 3], "dtype": "float32"}],
        "records": {"kind": "table", "shape": [2], "dtype": "float32", "mean": [0.0, 0.0],
                    "deviation": [1.0, 1.0], "columns": ["a", "b"]},
        "files": {name: {"bytes": file.bytes, "sha256": file.sha256}
                  for name, file in files.items()},
        "platforms": ["cpu"], "gradients": 0, "calling_convention": 10, "task": "classification",
        "classes": ["a", "b", "c"], "vocabulary": {}, "source": {"run": "digits", "step": 3},
    }  # fmt: skip
    (folder / manifests.NAME).write_bytes(sealed(content))
    return content


def _changes() -> Iterator[tuple[str, Callable[[dict[str, Any]], Any]]]:
    """Names and changes of a manifest that is sealed again afterwards."""

    def put(*path: Any, value: Any) -> Callable[[dict[str, Any]], Any]:
        def change(content: Any) -> None:
            for step in path[:-1]:
                content = content[step]
            content[path[-1]] = value

        return change

    yield "another_version", put("version", value=2)
    yield "another_format", put("format", value="../../program")
    yield "expired", put("expires", value="2020-01-01")
    yield "a_newer_jax", put("versions", "jax", value="99.0.0")
    yield "another_convention", put("calling_convention", value=999)
    yield "one_name_more", put("run", value="os.system")
    for name, value in {
        "parent": "../program.bin", "absolute": "/etc/passwd", "home": "~/program.bin",
        "nothing": "", "point": ".", "backslash": "..\\program.bin", "zero": "program.bin\0",
    }.items():  # fmt: skip
        yield f"file_{name}", put("files", value, value={"bytes": 10, "sha256": "0" * 64})
    for number, wrong in enumerate((-1, 2**63, 1.5, "10", None, True, [10])):
        yield f"bytes_{number}", put("files", "program.bin", "bytes", value=wrong)
    for number, wrong in enumerate(("", "A" * 64, "0" * 63, 0, None)):
        yield f"sha256_{number}", put("files", "program.bin", "sha256", value=wrong)
    for number, wrong in enumerate((["batch", -2], ["__import__('os')", 2], [2**63], "x", [[2]])):
        yield f"signature_{number}", put("inputs", 0, "shape", value=wrong)
    for number, wrong in enumerate(("O", "object", "os.system", None)):
        yield f"signature_dtype_{number}", put("inputs", 0, "dtype", value=wrong)
    yield "records_of_gigabytes", put("records", "shape", value=[2**40])
    yield "records_of_another_kind", put("records", "kind", value="pickle")
    yield "mean_that_is_none", put("records", "mean", value=["nan"])
    yield "class_for_a_terminal", put("classes", 0, value="\x1b]0;owned\x07")
    yield "class_of_half_a_pair", put("classes", 0, value="\ud800")
    yield "class_of_a_megabyte", put("classes", 0, value="a" * (1 << 20))
    yield "vocabulary_of_a_kind", put("vocabulary", value={"kind": "pickle", "content": "cos"})
    yield "vocabulary_of_another_size", put("vocabulary", value={"kind": "numbers", "size": 2**40})
    yield (
        "tokenizer_that_is_not_there",
        put("vocabulary", value={"kind": "tokenizer", "sha256": "0" * 64}),
    )


def hostile_artifacts(folder: Path, marker: Path) -> Iterator[Case]:
    """Folders that call themselves artifacts."""
    for name, change in _changes():
        path = folder / f"manifest_{name}"
        content = good_artifact(path)
        change(content)
        (path / manifests.NAME).write_bytes(sealed(content))
        yield Case(path.name, "artifact", path)

    def one(name: str, spoil: Callable[[Path], Any]) -> Case:
        path = folder / name
        good_artifact(path)
        spoil(path)
        return Case(name, "artifact", path)

    manifest, program, params = manifests.NAME, manifests.PROGRAM, manifests.PARAMS
    yield one("without_a_manifest", lambda p: (p / manifest).unlink())
    yield one("without_a_program", lambda p: (p / program).unlink())
    yield one("with_a_pickle", lambda p: (p / manifest).write_bytes(pickle.dumps(Evil(marker))))
    yield one("with_a_long_manifest", lambda p: (p / manifest).write_bytes(b" " * (5 << 20)))
    yield one("with_a_deep_manifest", lambda p: (p / manifest).write_bytes(b"[" * 500_000))
    yield one("with_another_byte", lambda p: _flip(p / manifest, 300))
    yield one("with_a_program_flipped", lambda p: _flip(p / program, 3))
    yield one("with_a_program_cut_short", lambda p: (p / program).write_bytes(b"no"))
    yield one("with_params_flipped", lambda p: _flip(p / params, -1))
    yield one("with_params_that_overlap", _overlapping)
    for name in (manifest, program, params):
        yield one(f"with_{name}_a_link", lambda p, n=name: _linked(p / n, folder))
        yield one(f"with_{name}_a_folder", lambda p, n=name: ((p / n).unlink(), (p / n).mkdir()))
        yield one(f"with_{name}_a_pipe", lambda p, n=name: ((p / n).unlink(), os.mkfifo(p / n)))


def _flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def _linked(path: Path, folder: Path) -> None:
    outside = folder.parent / f"outside_{path.name}"
    outside.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(outside)


def _overlapping(path: Path) -> None:
    two = {"params/a": _one()["a"], "params/b": _one(offsets=(4, 12))["a"]}
    (path / manifests.PARAMS).write_bytes(tensors_file(two, bytes(12)))
    content = json.loads((path / manifests.NAME).read_text())["content"]
    file = manifests.file_of(path / manifests.PARAMS)
    content["files"][manifests.PARAMS] = {"bytes": file.bytes, "sha256": file.sha256}
    (path / manifests.NAME).write_bytes(sealed(content))


def write(folder: Path, marker: Path) -> list[Case]:
    """Make all of them in a folder.

    Args:
        folder: empty.
        marker: the file that appears if code in one of them runs.
    """
    cases: list[Case] = []

    def file(name: str, kind: str, ending: str, content: bytes) -> None:
        path = folder / kind / f"{name}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        cases.append(Case(f"{kind}/{name}", kind, path))

    for name, content in hostile_tensors(marker):
        file(name, "tensors", "safetensors", content)
    for name, content in hostile_arrays(marker):
        file(name, "npy", "npy", content)
    for name, content in hostile_images(marker):
        ending, _, rest = name.partition(":")
        file(rest, "image", ending, content)
    for kind, name, content in hostile_texts():
        file(name, kind, "csv" if kind == "table" else "txt", content)
    artifacts = folder / "artifacts"
    artifacts.mkdir(parents=True)
    return [*cases, *hostile_artifacts(artifacts, marker)]
