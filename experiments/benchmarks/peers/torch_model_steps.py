"""Milliseconds a step of the models of ``ours/model_steps.py`` in PyTorch, as its users write them.

The small GPT is nanoGPT's: pre-norm blocks without biases, PyTorch's fused attention, tied
embeddings, AdamW with decay on matrices, clipping. ``--channels-last`` for images, ``--compile``
for ``torch.compile``. It generates with keys and values kept, token by token, without gradients.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import digits_arrays
import torch
from torch import nn
from torch.nn import functional

Stretch = Callable[[int], None]
TOKENS_OF_A_TEXT = 48


class Block(nn.Module):
    """Attention and an MLP, each behind a norm and beside a shortcut."""

    def __init__(self, width: int = 128, heads: int = 4):
        super().__init__()
        self.heads = heads
        self.norm_0 = nn.LayerNorm(width, bias=False)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm_1 = nn.LayerNorm(width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: torch.Tensor, cache: list[torch.Tensor] | None = None) -> torch.Tensor:
        """(batch, time, width) -> the same; keys and values go into a cache, if there is one."""
        batch, time_, width = x.shape
        q, k, v = (
            each.view(batch, time_, self.heads, -1).transpose(1, 2)
            for each in self.qkv(self.norm_0(x)).split(width, dim=2)
        )
        if cache is not None:
            if cache:
                k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
            cache[:] = [k, v]
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=time_ > 1)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, time_, width))
        return x + self.down(functional.gelu(self.up(self.norm_1(x))))


class GPT(nn.Module):
    """The small GPT."""

    def __init__(self, vocabulary: int = 65, context: int = 64, width: int = 128, layers: int = 4):
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(layers)))
        self.norm = nn.LayerNorm(width, bias=False)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.token.weight
        nn.init.normal_(self.token.weight, std=0.02)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Tokens and the next ones, (batch, time) -> mean cross-entropy."""
        h = self.token(x) + self.position(torch.arange(x.shape[1]))
        logits = self.head(self.norm(self.blocks(h)))
        return functional.cross_entropy(logits.flatten(0, 1), y.flatten())

    @torch.inference_mode()
    def generate(self, prompt: torch.Tensor, tokens: int) -> torch.Tensor:
        """A prompt, (batch, time) -> as many tokens after it, drawn from the model's law."""
        caches: list[list[torch.Tensor]] = [[] for _ in self.blocks]
        new, place, found = prompt, 0, []
        for _ in range(tokens):
            h = self.token(new) + self.position(torch.arange(place, place + new.shape[1]))
            for block, cache in zip(self.blocks, caches, strict=True):
                h = block(h, cache)
            place += new.shape[1]
            new = torch.multinomial(self.head(self.norm(h[:, -1])).softmax(-1), 1)
            found.append(new)
        return torch.cat(found, 1)


class Residual(nn.Module):
    """ResNet's basic block."""

    def __init__(self, before: int, width: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut = nn.Identity()
        if stride != 1 or before != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, channels, height, width) -> likewise."""
        return self.relu(self.body(x) + self.shortcut(x))


def gpt_nano(options: argparse.Namespace) -> Stretch:
    model = GPT()
    decayed = [each for each in model.parameters() if each.dim() > 1]
    others = [each for each in model.parameters() if each.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99))
    tokens = torch.randint(0, 65, (100_000,))
    loss_of = torch.compile(model) if options.compile else model

    def stretch(steps: int) -> None:
        losses = []
        for _ in range(steps):
            starts = torch.randint(0, len(tokens) - 64, (12,))
            x = torch.stack([tokens[i : i + 64] for i in starts])
            y = torch.stack([tokens[i + 1 : i + 65] for i in starts])
            loss = loss_of(x, y)
            adamw.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            adamw.step()
            losses.append(loss.detach())
        assert torch.isfinite(torch.stack(losses)).all()

    return stretch


def gpt_nano_generate(options: argparse.Namespace) -> Stretch:
    model = GPT().eval()
    prompt = torch.randint(0, 65, (1, 16))

    def stretch(steps: int) -> None:
        for _ in range(steps // TOKENS_OF_A_TEXT):
            assert model.generate(prompt, TOKENS_OF_A_TEXT).shape == (1, TOKENS_OF_A_TEXT)

    return stretch


def _gradients(model: nn.Module, backward: Callable[[], None]) -> Stretch:
    def stretch(steps: int) -> None:
        for _ in range(steps):
            model.zero_grad(set_to_none=True)
            backward()

    return stretch


def resnet18(options: argparse.Namespace) -> Stretch:
    blocks, before = [], 64
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        blocks += [Residual(before, width, stride), Residual(width, width, 1)]
        before = width
    model = nn.Sequential(
        *(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)),
        nn.MaxPool2d(3, 2, 1),
        *blocks,
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000)),
    )
    x, slope = torch.randn(16, 3, 224, 224), torch.randn(16, 1000)
    if options.channels_last:
        model, x = (
            model.to(memory_format=torch.channels_last),
            x.contiguous(memory_format=torch.channels_last),
        )
    forward = torch.compile(model) if options.compile else model
    return _gradients(model, lambda: forward(x).backward(slope))


def functorch_cnn(options: argparse.Namespace) -> Stretch:
    model = nn.Sequential(
        *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Linear(128, 10)),
    )
    x, y = torch.randn(64, 1, 28, 28), torch.arange(64) % 10
    if options.channels_last:
        model, x = (
            model.to(memory_format=torch.channels_last),
            x.contiguous(memory_format=torch.channels_last),
        )
    forward = torch.compile(model) if options.compile else model
    return _gradients(model, lambda: functional.cross_entropy(forward(x), y).backward())


def lstm(options: argparse.Namespace) -> Stretch:
    model, x = nn.LSTM(256, 256, 2, batch_first=True), torch.randn(32, 128, 256)
    forward = torch.compile(model) if options.compile else model
    return _gradients(model, lambda: forward(x)[0].square().mean().backward())


WORKS = {
    "gpt_nano_step": gpt_nano,
    "resnet18_step": resnet18,
    "functorch_cnn_step": functorch_cnn,
    "lstm_step": lstm,
    "gpt_nano_generate": gpt_nano_generate,
}


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("--steps", type=int, default=20, help="steps in a sample")
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(digits_arrays.cores())
    torch.manual_seed(0)
    stretch, samples = WORKS[options.work](options), []
    for _ in range(options.samples + 1):
        began = time.perf_counter()
        stretch(options.steps)
        samples.append((time.perf_counter() - began) / options.steps * 1e3)
    unit = "ms/token" if options.work == "gpt_nano_generate" else "ms/step"
    print(json.dumps({"samples": samples[1:], "unit": unit}))


if __name__ == "__main__":
    main()
