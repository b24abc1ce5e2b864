from __future__ import annotations

import random

import pytest

from functorch_kit.generation import TextStream

TEXT = "Grüße, 世界! 𝄞 – fin"


def _bytes(tokens) -> str:
    return bytes(tokens).decode(errors="replace")


@pytest.mark.parametrize("seed", range(5))
def test_what_is_said_bit_by_bit_is_the_whole_and_never_half_a_character(seed: int):
    left, said = list(TEXT.encode()), []
    chance = random.Random(seed)
    stream = TextStream(_bytes)
    while left:
        count = chance.randint(0, 4)
        said.append(stream.add(left[:count]))
        left = left[count:]
    assert "".join(said) == TEXT
    assert not any("\N{REPLACEMENT CHARACTER}" in part for part in said)
    assert stream.rest() == ""


def test_what_came_before_is_not_said_again():
    stream = TextStream(_bytes, list(b"abc"))
    assert stream.add(list(b"de")) == "de"


def test_a_character_that_is_never_finished_is_said_at_the_end():
    stream = TextStream(_bytes)
    assert stream.add([97, 0xC3]) == "a"
    assert stream.rest() == "\N{REPLACEMENT CHARACTER}"
