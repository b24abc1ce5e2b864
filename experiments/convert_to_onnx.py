"""The conversion to ONNX itself, which export.py starts in an environment with jax2onnx.

python experiments/convert_to_onnx.py <folder>      with recipe.json and params.safetensors in it
"""

import json
import sys
from pathlib import Path


def convert(folder: Path) -> dict[str, str]:
    import jax
    import numpy as np

    from functorch_kit import safetensors
    from functorch_kit.config import servable_model
    from functorch_kit.export.onnx_graph import write_onnx
    from functorch_kit.export.program import filled

    told = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    model, inputs = servable_model(told["recipe"]), told["recipe"]["inputs"]
    x = jax.ShapeDtypeStruct((1, *inputs["shape"]), np.dtype(inputs["dtype"]))
    params, state = jax.eval_shape(model.init, jax.random.key(0), x)
    arrays = safetensors.read(folder / "params.safetensors")
    whole = filled({"params": params, "model_state": state}, arrays)
    return write_onnx(
        Path(told["out"]), model, whole["params"], whole["model_state"], x, batch=told["batch"]
    )


if __name__ == "__main__":
    from functorch_kit.errors import UserError

    try:
        print(json.dumps(convert(Path(sys.argv[1]))))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
