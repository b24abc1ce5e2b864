"""Let a language model go on with a text: the best checkpoint of a run, and nothing else.

python experiments/generate.py run=runs/<run> prompt='To be'
python experiments/generate.py run=runs/<run> prompt='To be' stream=true      as it comes
python experiments/generate.py run=runs/<run> samples=8 tokens=400 temperature=0.8 top_k=40
python experiments/generate.py run=runs/<run> temperature=0                   the likeliest, always

The same seed gives the same text, and sample 3 is the same whether 4 or 400 are asked for. Once the
model's context is full, its last half is read again and generation goes on from there
(overflow=slide), or the text ends (overflow=stop).
"""

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import frame

from functorch_kit.config import ConfigError, load_run, setting

BETWEEN = "\n---------------\n"


@dataclasses.dataclass
class Generation:
    run: str | None = setting(None, "folder of the run", needed="<folder of a run>")
    prompt: str = setting("\n", "the text to go on with")
    tokens: int = setting(500, "how many to generate", least=1, most=100_000_000)
    samples: int = setting(1, "texts to generate at once", least=1, most=1_000_000)
    temperature: float = setting(
        1.0, "below 1 for the likely, above 1 for the unlikely; 0: the likeliest", least=0, most=1e6
    )
    top_k: int | None = setting(
        None, "likeliest tokens to choose from; null: all", least=1, most=2**31 - 2
    )
    top_p: float | None = setting(
        None, "the fewest tokens that have this probability; null: all", above=0, most=1
    )
    end: str | None = setting(None, "a token that ends a text; null: none does")
    overflow: str = setting(
        "slide", "what happens once the context is full", choices=("slide", "stop")
    )
    seed: int = setting(0, "another one, other texts", least=0, most=2**32 - 1)
    stream: bool = setting(False, "whether the text is printed as it comes")
    chunk: int = setting(32, "tokens of one dispatch", least=1, most=65_536)
    quiet: bool = setting(False, "print the text alone")


def generate(config: Generation, job: frame.Job) -> None:
    if config.prompt == "":
        raise ConfigError("prompt is empty: give some text to go on with")
    if config.stream and config.samples > 1:
        raise ConfigError("stream=true prints one text as it comes: give samples=1")
    load_run(config.run or "")  # what is wrong with it is said before JAX is loaded
    from functorch_kit import generation, program
    from functorch_kit.config import load_language_model

    found = load_language_model(Path(config.run or ""))
    prompt = found.vocabulary.encode(config.prompt).tolist()
    if not prompt:
        raise ConfigError("prompt has no tokens: give some text to go on with")
    program.use_cache()
    generator = generation.Generator(found.config, found.params, chunk=config.chunk)
    sampling = generation.Sampling(config.temperature, config.top_k, config.top_p)
    pieces = generator.stream(
        [prompt] * config.samples,
        tokens=config.tokens,
        sampling=sampling,
        seed=config.seed,
        end=end_token(config, found.vocabulary),
        overflow=config.overflow,
    )
    decode = found.vocabulary.decode
    rows: list[list[int]] = [[] for _ in range(config.samples)]
    streamed = generation.TextStream(decode, prompt)
    if config.stream:
        print(config.prompt, end="", flush=True)
    began, reasons = time.perf_counter(), []
    for piece in pieces:
        reasons = piece.reasons
        for row, new in zip(rows, piece.tokens, strict=True):
            row.extend(new.tolist())
        if config.stream:
            print(streamed.add(piece.tokens[0].tolist()), end="", flush=True)
    seconds = time.perf_counter() - began
    if config.stream:
        print(streamed.rest(), flush=True)
    else:
        known = len(decode(prompt))
        texts = [config.prompt + decode([*prompt, *row])[known:] for row in rows]
        print(BETWEEN.join(texts))
    if not config.quiet:
        ended = ", ".join(f"{reasons.count(each)} by {each}" for each in dict.fromkeys(reasons))
        print(
            f"{sum(map(len, rows))} tokens in {seconds:.2f} s with compilation, step {found.step}"
            f" of {config.run}; texts ended: {ended}",
            file=sys.stderr,
        )


def end_token(config: Generation, vocabulary: Any) -> int | None:
    if config.end is None:
        return None
    tokens = vocabulary.encode(config.end).tolist()
    if len(tokens) != 1:
        raise ConfigError(f"end is {config.end!r}, which is {len(tokens)} tokens: give one")
    return tokens[0]


if __name__ == "__main__":
    frame.run(generate, Generation, "evaluate")
