"""What Hugging Face's library wants to know beside the weights: ``config.json``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from functorch_kit import models
from functorch_kit.interop.entries import RESNET_BLOCKS
from functorch_kit.interop.errors import InteropError


def hugging_face_settings(
    config: Any, *, image: Sequence[int] = (), classes: Sequence[str] = ()
) -> dict[str, Any]:
    """The settings under which Hugging Face's model of the same kind computes the same.

    Written as ``config.json`` beside the ``model.safetensors`` that ``hugging_face(config).save``
    writes, they make a folder for ``from_pretrained``.

    Args:
        config: of our model, as for ``hugging_face``.
        image: shape of an image (height, width, channels), of models that take some.
        classes: a name for each.

    Raises:
        InteropError: a model of which Hugging Face has none that computes the same.

    Example:
        >>> from functorch_kit import models
        >>> made = hugging_face_settings(models.GPT_SIZES["gpt2"])
        >>> made["architectures"], made["n_embd"], made["activation_function"]
        (['GPT2LMHeadModel'], 768, 'gelu_new')
    """
    match config:
        case models.GPTConfig(window=None, norm="layer"):
            return _gpt2(config)
        case models.GPTConfig(window=None, norm="rms"):
            return _llama(config)
        case models.ViTConfig() if len(image) == 3 and image[0] == image[1]:
            return _vit(config, image) | _labels(classes)
        case models.ResNetConfig(stem="imagenet") if len(image) == 3:
            return _resnet(config, image) | _labels(classes)
        case _:
            raise InteropError(
                f"Hugging Face has no model that computes what {config!r:.100} does on images of"
                f" {tuple(image)}: leave the names as they are"
            )


def _gpt2(config: models.GPTConfig) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": config.vocabulary,
        "n_positions": config.context,
        "n_embd": config.width,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_inner": config.hidden,
        "activation_function": "gelu" if config.exact_gelu else "gelu_new",
        "layer_norm_epsilon": config.epsilon or 1e-5,
        "tie_word_embeddings": config.is_tied,
        # GPT-2's own, which is no token of another vocabulary.
        "bos_token_id": None,
        "eos_token_id": None,
    }


def _llama(config: models.GPTConfig) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context,
        "hidden_size": config.width,
        "intermediate_size": config.hidden or 4 * config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads or config.heads,
        "hidden_act": "silu",
        "rms_norm_eps": config.epsilon or 1e-6,
        "rope_theta": config.rotary_base,
        "tie_word_embeddings": config.is_tied,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def _vit(config: models.ViTConfig, image: Sequence[int]) -> dict[str, Any]:
    return {
        "model_type": "vit",
        "architectures": ["ViTForImageClassification"],
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.hidden or 4 * config.width,
        "hidden_act": "gelu",
        "layer_norm_eps": config.epsilon,
        "image_size": image[0],
        "num_channels": image[2],
        "patch_size": config.patch,
        "qkv_bias": True,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        **_count(config.outputs),
    }


def _resnet(config: models.ResNetConfig, image: Sequence[int]) -> dict[str, Any]:
    is_bottleneck = config.depth >= 50
    widest = 4 if is_bottleneck else 1
    return {
        "model_type": "resnet",
        "architectures": ["ResNetForImageClassification"],
        "num_channels": image[2],
        "embedding_size": config.width,
        "hidden_sizes": [config.width * widest * 2**stage for stage in range(4)],
        "depths": list(RESNET_BLOCKS[config.depth]),
        "layer_type": "bottleneck" if is_bottleneck else "basic",
        "hidden_act": "relu",
        **_count(config.outputs),
    }


def _count(outputs: int) -> dict[str, Any]:
    return _labels([f"LABEL_{number}" for number in range(outputs)])


def _labels(classes: Sequence[str]) -> dict[str, Any]:
    if not classes:
        return {}
    numbered = dict(enumerate(classes))
    return {
        "id2label": {str(number): name for number, name in numbered.items()},
        "label2id": {name: number for number, name in numbered.items()},
    }
