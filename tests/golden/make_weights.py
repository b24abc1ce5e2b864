"""Logits of torchvision's and Hugging Face's models, ``weights.npz``; small files in ``weights/``.

Run once, where both are installed: ``python tests/golden/make_weights.py``. The tests need neither.
The weights themselves are drawn by name (see ``drawn.py``), so that they need not be kept.
"""

from __future__ import annotations

import importlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.golden import drawn
from tests.golden.torch_peers import torchvision_models

HERE = Path(__file__).parent
FILES = HERE / "weights"
Shapes = dict[str, tuple[int, ...]]
CLASSES = 10


def of_images() -> dict[str, Any]:
    """Torchvision's models, the wide classifiers of two made narrow."""
    torch, zoo = importlib.import_module("torch"), torchvision_models()
    nn, made = torch.nn, {}
    alexnet = zoo.alexnet(num_classes=CLASSES)
    alexnet.classifier[1], alexnet.classifier[4] = nn.Linear(256 * 36, 16), nn.Linear(16, 16)
    alexnet.classifier[6] = nn.Linear(16, CLASSES)
    made["alexnet"] = alexnet
    for name in ("vgg11", "vgg11_bn"):
        vgg = getattr(zoo, name)(num_classes=CLASSES)
        vgg.classifier[0], vgg.classifier[3] = nn.Linear(512 * 49, 16), nn.Linear(16, 16)
        vgg.classifier[6] = nn.Linear(16, CLASSES)
        made[name] = vgg
    for name, transform in (("googlenet", False), ("googlenet transform_input", True)):
        made[name] = zoo.googlenet(
            weights=None, num_classes=CLASSES, aux_logits=True, init_weights=False,
            transform_input=transform,
        )  # fmt: skip
    for depth in (18, 50):
        made[f"resnet{depth}"] = getattr(zoo, f"resnet{depth}")(num_classes=CLASSES)
    return made


def of_hugging_face() -> dict[str, Any]:
    """Hugging Face's models at sizes of their own."""
    hf = importlib.import_module("transformers")
    vit = hf.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        image_size=32, patch_size=8, num_labels=CLASSES,
    )  # fmt: skip
    resnets = {
        f"hf resnet{depth}": hf.ResNetForImageClassification(
            hf.ResNetConfig(
                layer_type=kind, depths=blocks, num_labels=CLASSES,
                hidden_sizes=[64 * factor * 2**stage for stage in range(4)],
            )
        )
        for depth, kind, blocks, factor in (
            (18, "basic", [2, 2, 2, 2], 1), (50, "bottleneck", [3, 4, 6, 3], 4)
        )
    }  # fmt: skip
    llama = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
             "num_attention_heads": 4, "vocab_size": 11, "max_position_embeddings": 32,
             "rms_norm_eps": 1e-5}  # fmt: skip
    return {
        "gpt2": hf.GPT2LMHeadModel(
            hf.GPT2Config(n_embd=8, n_layer=2, n_head=2, vocab_size=11, n_positions=12)
        ),
        "llama": hf.LlamaForCausalLM(
            hf.LlamaConfig(**llama, num_key_value_heads=2, rope_theta=5e5)
        ),
        "llama tied": hf.LlamaForCausalLM(hf.LlamaConfig(**llama, tie_word_embeddings=True)),
        "vit": hf.ViTForImageClassification(vit),
        **resnets,
    }


def filled(model: Any) -> tuple[Any, Shapes]:
    """Draw every tensor of a model of torchvision by its name."""
    torch = importlib.import_module("torch")
    state = model.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    tensors = {name: torch.from_numpy(value) for name, value in drawn.all_drawn(shapes).items()}
    model.load_state_dict(tensors)
    return model.eval(), shapes


def refilled(model: Any) -> tuple[Any, Shapes]:
    """Draw those of Hugging Face by the names in its files, which those in memory are not."""
    files = importlib.import_module("safetensors.numpy")
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        path = f"{folder}/model.safetensors"
        shapes = {name: tensor.shape for name, tensor in files.load_file(path).items()}
        files.save_file(drawn.all_drawn(shapes), path, metadata={"format": "pt"})
        return type(model).from_pretrained(folder).eval(), shapes


def main() -> None:
    """Write the files."""
    torch = importlib.import_module("torch")
    torchvision_models()  # first: transformers imports it, too
    torch.manual_seed(0)
    made: dict[str, Any] = {}
    theirs = {name: refilled(model) for name, model in of_hugging_face().items()}
    vision = {name: filled(model) for name, model in of_images().items()}
    for name, (model, shapes) in (vision | theirs).items():
        side = 96 if name == "alexnet" else 32 if name == "vit" else 64
        with torch.no_grad():
            if name in ("gpt2", "llama", "llama tied"):
                y = model(torch.from_numpy(drawn.tokens(name, 11, 9)).long())
            else:
                y = model(torch.from_numpy(drawn.image(name, side)).permute(0, 3, 1, 2))
        made[f"{name}|shapes"] = np.array(drawn.as_text(shapes))
        made[f"{name}|y"] = getattr(y, "logits", y).numpy()
        print(f"{name}: logits up to {np.abs(made[f'{name}|y']).max():.3g}")
    for library in ("torch", "torchvision", "transformers"):
        made[library] = np.array(importlib.import_module(library).__version__)
    np.savez_compressed(HERE / "weights.npz", **made)
    files(torch, theirs["gpt2"][0])
    size = sum(file.stat().st_size for file in (HERE / "weights.npz", *FILES.rglob("*.*")))
    print(f"{len(made) // 2} models, {size / 1e3:.0f} kB with the files")


def files(torch: Any, gpt2: Any) -> None:
    """The small GPT-2 as each writer leaves it."""
    shutil.rmtree(FILES, ignore_errors=True)
    FILES.mkdir()
    for folder, options in {"whole": {}, "shards": {"max_shard_size": "4KB"}}.items():
        gpt2.save_pretrained(FILES / folder, **options)
    state = gpt2.state_dict()
    torch.save(state, FILES / "zip.bin")
    torch.save(state, FILES / "legacy.bin", _use_new_zipfile_serialization=False)
    halves = {name: tensor.to(torch.bfloat16) for name, tensor in state.items()}
    torch.save({"epoch": 3, "state_dict": halves}, FILES / "nested.pth")
    shards = FILES / "bin_shards"
    shards.mkdir()
    names = list(state)
    places = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"pytorch_model-{number:05}-of-00002.bin"
        torch.save({name: state[name].clone() for name in part}, shards / file)
        places |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": places}
    (shards / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")


if __name__ == "__main__":
    main()
