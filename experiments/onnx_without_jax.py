"""Run an exported ONNX file with onnxruntime and NumPy: this needs neither JAX nor functorch_kit.

python experiments/export.py run=runs/<run> out=digits_onnx format=onnx onnx_python=<python>
pip install numpy onnxruntime                                 in any environment, on any machine
python onnx_without_jax.py digits_onnx records.npy            the likeliest class of each record

Its logits are JAX's within 1e-5. The same file runs in C++, Java or a browser; what goes in and
what comes out stands in manifest.json.
"""

# pyright: reportMissingImports=false

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime


def main(folder: Path, records: Path) -> None:
    content = (folder / "model.onnx").read_bytes()
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["content"]
    if hashlib.sha256(content).hexdigest() != manifest["files"]["model.onnx"]["sha256"]:
        sys.exit("error: model.onnx is not what was written: export it again")
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    x = np.load(records, allow_pickle=False).astype(manifest["inputs"][0]["dtype"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: x})
    names = dict(enumerate(manifest["classes"]))
    for number, row in enumerate(logits):
        best = int(row.argmax())
        print(number, names.get(best, best), *(f"{value:.6g}" for value in row))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python onnx_without_jax.py <artifact folder> <records.npy>")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
