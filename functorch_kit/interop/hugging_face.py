"""Tables of Hugging Face's models: GPT-2, Llama and its kind, ViT, ResNet."""

from __future__ import annotations

from typing import Any

from functorch_kit import models
from functorch_kit.interop.entries import (
    COUNTER,
    RESNET_BLOCKS,
    Entries,
    batch_norm,
    convolution,
    counters,
    dense,
    embedding,
    norm,
)
from functorch_kit.interop.errors import InteropError
from functorch_kit.interop.layouts import ROW, SAME
from functorch_kit.interop.table import Entry, Table


def hugging_face(config: Any) -> Table:
    """The table of Hugging Face's model of the same kind.

    GPT-2 and Llama with a head for the next token, ViT and ResNet with one for classes. Files of
    the models without a head, and with other heads, have other names, and are refused; those whose
    names lack the leading ``transformer.``, ``model.``, ``vit.`` or ``resnet.`` are read.

    Args:
        config: of our model: a GPTConfig as ``GPT_SIZES`` has them, a ViTConfig or a ResNetConfig.

    Returns:
        A Table. Llama's kind differ in ``epsilon`` and ``rotary_base``; ViT's ``epsilon`` is 1e-12
        there. Both are numbers of the config, which a file of weights does not tell.

    Raises:
        InteropError: Hugging Face has no such model, or its blocks are stacked here.

    Example:
        >>> from functorch_kit import models
        >>> table = hugging_face(models.GPT_SIZES["gpt2"])
        >>> table.name, table.entries[5].theirs
        ('Hugging Face GPT-2', 'transformer.h.0.attn.c_attn.bias')
        >>> [path.removeprefix("params/blocks/0/") for path in table.entries[5].ours]
        ['attention/query/bias', 'attention/key/bias', 'attention/value/bias']
    """
    if getattr(config, "is_repeated", False):
        raise InteropError("hugging_face: the blocks are stacked: give is_repeated=False")
    match config:
        case models.GPTConfig(
            norm="layer", position="learned", mlp="gelu", use_bias=True, is_tied=True,
            kv_heads=None, qk_norm=False,
        ):  # fmt: skip
            return _gpt2(config)
        case models.GPTConfig(
            norm="rms", position="rotary", mlp="swiglu", use_bias=False, qk_norm=False
        ):
            return _llama(config)
        case models.ViTConfig():
            return _vit(config)
        case models.ResNetConfig(is_preactivation=False):
            return _resnet(config)
        case _:
            raise InteropError(f"hugging_face: there is no table for {config!r:.100}")


def _gpt2(config: models.GPTConfig) -> Table:
    # Its dense layers are called Conv1D, and are laid out as ours are.
    entries = embedding("transformer.wte", "token") + embedding("transformer.wpe", "position")
    for index in range(config.layers):
        theirs, ours = f"transformer.h.{index}", f"blocks/{index}"
        entries += norm(f"{theirs}.ln_1", f"{ours}/attention_norm")
        for ending, leaf in (("weight", "kernel"), ("bias", "bias")):
            paths = [f"params/{ours}/attention/{part}/{leaf}" for part in ("query", "key", "value")]
            entries += (Entry(f"{theirs}.attn.c_attn.{ending}", tuple(paths)),)
        entries += dense(f"{theirs}.attn.c_proj", f"{ours}/attention/out", layout=SAME)
        entries += norm(f"{theirs}.ln_2", f"{ours}/mlp_norm")
        entries += dense(f"{theirs}.mlp.c_fc", f"{ours}/mlp/up", layout=SAME)
        entries += dense(f"{theirs}.mlp.c_proj", f"{ours}/mlp/down", layout=SAME)
    entries += norm("transformer.ln_f", "norm")
    return Table(
        "Hugging Face GPT-2",
        entries,
        prefix="transformer.",
        passed_over=("*.attn.bias", "*.attn.masked_bias"),  # the triangle of ones
        cut=("params/position/embedding",),
        tied=(("transformer.wte.weight", "lm_head.weight"),),
    )


def _llama(config: models.GPTConfig) -> Table:
    entries = embedding("model.embed_tokens", "token")
    for index in range(config.layers):
        theirs, ours = f"model.layers.{index}", f"blocks/{index}"
        entries += norm(f"{theirs}.input_layernorm", f"{ours}/attention_norm", use_bias=False)
        # Queries and keys are turned in pairs (i, width / 2 + i) there as here.
        for part, name in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "o")):
            entries += dense(
                f"{theirs}.self_attn.{name}_proj", f"{ours}/attention/{part}", use_bias=False
            )
        entries += norm(f"{theirs}.post_attention_layernorm", f"{ours}/mlp_norm", use_bias=False)
        for part in ("gate", "up", "down"):
            entries += dense(f"{theirs}.mlp.{part}_proj", f"{ours}/mlp/{part}", use_bias=False)
    entries += norm("model.norm", "norm", use_bias=False)
    tied: tuple[tuple[str, str], ...] = (("model.embed_tokens.weight", "lm_head.weight"),)
    if not config.is_tied:
        entries, tied = entries + dense("lm_head", "head", use_bias=False), ()
    return Table(
        "Hugging Face Llama",
        entries,
        prefix="model.",
        passed_over=("*.rotary_emb.inv_freq",),
        tied=tied,
    )


def _vit(config: models.ViTConfig) -> Table:
    entries: Entries = (
        Entry("vit.embeddings.cls_token", ("params/class_token/embedding",), ROW),
        Entry("vit.embeddings.position_embeddings", ("params/position/embedding",), ROW),
    )
    entries += convolution("vit.embeddings.patch_embeddings.projection", "patches", use_bias=True)
    for index in range(config.layers):
        theirs, ours = f"vit.encoder.layer.{index}", f"blocks/{index}"
        entries += norm(f"{theirs}.layernorm_before", f"{ours}/attention_norm")
        for part in ("query", "key", "value"):
            entries += dense(f"{theirs}.attention.attention.{part}", f"{ours}/attention/{part}")
        entries += dense(f"{theirs}.attention.output.dense", f"{ours}/attention/out")
        entries += norm(f"{theirs}.layernorm_after", f"{ours}/mlp_norm")
        entries += dense(f"{theirs}.intermediate.dense", f"{ours}/mlp/up")
        entries += dense(f"{theirs}.output.dense", f"{ours}/mlp/down")
    entries += norm("vit.layernorm", "norm") + dense("classifier", "head")
    return Table(
        "Hugging Face ViT",
        entries,
        prefix="vit.",
        passed_over=("pooler.*",),
        heads=("params/head",),
        optional=("params/head",),
    )


def _resnet(config: models.ResNetConfig) -> Table:
    def unit(theirs: str, ours: str, number: str = "") -> Entries:
        return convolution(f"{theirs}.convolution", f"{ours}/conv{number}") + batch_norm(
            f"{theirs}.normalization", f"{ours}/norm{number}"
        )

    is_bottleneck = config.depth >= 50
    entries = unit("resnet.embedder.embedder", "stem")
    for stage, count in enumerate(RESNET_BLOCKS[config.depth]):
        for block in range(count):
            theirs = f"resnet.encoder.stages.{stage}.layers.{block}"
            ours = f"stages/{stage}/blocks/{block}"
            for index in range(3 if is_bottleneck else 2):
                entries += unit(f"{theirs}.layer.{index}", f"{ours}/body", f"_{index}")
            if block == 0 and (stage > 0 or is_bottleneck):
                entries += unit(f"{theirs}.shortcut", f"{ours}/shortcut")
    entries += dense("classifier.1", "head")
    return Table(
        "Hugging Face ResNet",
        entries,
        prefix="resnet.",
        passed_over=(COUNTER,),
        constants=counters(entries),
        heads=("params/head",),
        optional=("params/head",),
    )
