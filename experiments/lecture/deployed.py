"""A static graph, trained in Python and deployed without it: an artifact that needs no model code.

The net is written as one StableHLO program with its weights, lowered for several platforms and for
any number of records. A process that never loads the layers or the model runs it. The same graph as
ONNX: ``python experiments/export.py run=… out=… format=onnx``.

Command: ``python experiments/lecture/deployed.py``
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import classroom
import jax
import numpy as np
import optax

import functorch_kit as fk

ROOT = Path(__file__).parents[2]
ELSEWHERE = """
import json, sys
import numpy as np
from functorch_kit import export
artifact = export.load(sys.argv[1])
y = artifact(np.load(sys.argv[2]))
rooms = ("functorch_kit.nn", "functorch_kit.models", "functorch_kit.train")
np.save(sys.argv[3], np.asarray(y))
print(json.dumps([name for name in rooms if name in sys.modules]))
"""


def elsewhere(folder: Path, x: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """What the artifact says in a process of its own, and rooms of the toolkit that it loaded."""
    given, answer = folder / "x.npy", folder / "y.npy"
    np.save(given, x)
    ended = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(folder / "net"), str(given), str(answer)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return np.load(answer), json.loads(ended.stdout.splitlines()[-1])


def example(options: argparse.Namespace) -> classroom.Shown:
    x, y, _ = classroom.data_set("B")
    model = fk.models.two_layer(fk.models.TwoLayerConfig(outputs=y.shape[1]))
    params, state = jax.jit(model.init)(jax.random.key(0), x)

    def loss(params: Any, x: Any, y: Any) -> Any:
        return fk.losses.squared_error(model.apply(params, state, x)[0], y).sum()

    losses, params = classroom.descend(loss, params, optax.sgd(1e-4), 200, x, y)
    expected = model.apply(params, state, x)[0]
    claims = {"it was trained": bool(losses[-1] < 0.1 * losses[0])}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        manifest = fk.export.save(folder / "net", model, params, state, x)
        size = sum(each.stat().st_size for each in (folder / "net").iterdir())
        artifact = fk.export.load(folder / "net")
        claims["the artifact gives what the model gives"] = classroom.agree(artifact(x), expected)
        claims["for any number of records"] = classroom.agree(artifact(x[:5]), expected[:5])
        if not options.quick:
            found, loaded = elsewhere(folder, np.asarray(x))
            claims["in a process that has no layers, models or training"] = (
                classroom.agree(found, expected) and loaded == []
            )
    figures = {
        "lowered for": ", ".join(manifest.platforms),
        "bytes": size,
        "loss after training": losses[-1],
    }
    return classroom.Shown(figures, claims)


if __name__ == "__main__":
    sys.exit(classroom.run(example))
