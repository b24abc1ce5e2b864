"""Generation: a language model goes on with what it is given, token by token."""

from functorch_kit.generation.generator import Generated, Generator, Piece, generate
from functorch_kit.generation.sampling import GenerationError, Sampling, draw, filtered, keys_of
from functorch_kit.generation.text_stream import TextStream

__all__ = [
    "Generated",
    "GenerationError",
    "Generator",
    "Piece",
    "Sampling",
    "TextStream",
    "draw",
    "filtered",
    "generate",
    "keys_of",
]
