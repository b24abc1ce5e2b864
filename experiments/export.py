"""Write the best checkpoint of a run as something that runs without this code.

python experiments/export.py run=runs/<run> out=<folder>                     a program of StableHLO
python experiments/export.py run=runs/<run> out=<folder> gradients=1         to be trained further
python experiments/export.py run=runs/<run> out=<folder> format=onnx onnx_python=<python>
python experiments/export.py run=runs/<run> out=<folder> format=safetensors  the parameters alone
python experiments/export.py run=runs/<run> out=<folder> format=safetensors names=hugging_face

A program takes raw records: bytes of images, columns of a table as they stand in the file. What the
run took out of them, mean and deviation, is part of it and stands in the manifest. It gives logits,
or the numbers of a regression; of a text, logits for the token after each. predict.py uses it, and
functorch_kit.export.load(<folder>) makes a function of it.

ONNX is written by jax2onnx, which does not go with this environment's Orbax, so onnx_python names
the Python of another: python -m venv onnx && onnx/bin/pip install jax2onnx onnxruntime optax pyyaml
jaxtyping. With names=hugging_face the folder is one for `from_pretrained` of transformers, which
takes what the model takes: tokens, or images that are prepared already.
"""

import dataclasses
from pathlib import Path

import frame

from functorch_kit.config import ConfigError, load_run, setting


@dataclasses.dataclass
class Export:
    run: str | None = setting(None, "folder of the run", needed="<folder of a run>")
    out: str | None = setting(None, "folder to write", needed="<new folder>")
    format: str = setting(
        "stablehlo", "what is written", choices=("stablehlo", "onnx", "safetensors")
    )
    names: str = setting(
        "native", "of parameters in safetensors", choices=("native", "hugging_face")
    )
    gradients: int = setting(0, "orders of derivatives that a program carries", least=0, most=2)
    batch: int | None = setting(
        None, "records in every batch; null: any number", least=1, most=1_000_000
    )
    days: int = setting(180, "until a program expires", least=1, most=180)
    onnx_python: str | None = setting(
        None, "Python of an environment with jax2onnx; null: this one's"
    )
    overwrite: bool = setting(False, "whether out may hold an artifact, which is then lost")
    quiet: bool = setting(False, "print nothing but the last line")


def export(config: Export, job: frame.Job) -> None:
    if config.names != "native" and config.format != "safetensors":
        raise ConfigError("names=hugging_face is for format=safetensors: give that as well")
    load_run(config.run or "")  # what is wrong with it is said before JAX is loaded
    from exporting import as_onnx, as_program, as_tensors, in_words

    from functorch_kit import program
    from functorch_kit.config import load_servable

    program.use_cache()
    found = load_servable(Path(config.run or ""))
    write = {"stablehlo": as_program, "onnx": as_onnx, "safetensors": as_tensors}[config.format]
    manifest = write(found, config)
    if not config.quiet:
        print(in_words(manifest))
    print(f"artifact: {config.out}")


if __name__ == "__main__":
    frame.run(export, Export, "evaluate")
