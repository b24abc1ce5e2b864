"""Overrides mean to Hydra, and to a shell, what the settings were."""

import math
import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functorch_kit.report.sweep_overrides import are_plain, one_line, override_words

parser = pytest.importorskip("hydra.core.override_parser.overrides_parser")


def plain(value):
    if isinstance(value, list):
        return [plain(each) for each in value]
    return getattr(value, "text", value)  # a quoted string


# An interpolation is not text to Hydra, whatever is around it; nor is a line's end in a word.
texts = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])).filter(
    lambda text: "${" not in text
)
numbers = st.one_of(st.none(), st.booleans(), st.integers(), st.floats())
values = st.one_of(numbers, texts, st.lists(st.one_of(numbers, texts), max_size=3))
bare = st.text("abzANnul_./:@%+*-0159e", min_size=1, max_size=6)


@settings(max_examples=200, deadline=None)
@given(st.one_of(values, bare, st.lists(bare, max_size=2)))
def test_hydra_reads_back_what_the_settings_were(value):
    [word] = shlex.split(one_line(override_words({"model.a": value})))
    found = plain(parser.OverridesParser.create().parse_override(word).value())
    if isinstance(value, float) and math.isnan(value):
        assert math.isnan(found)
    elif not any(isinstance(each, float) for each in (value if isinstance(value, list) else ())):
        assert (found, type(found)) == (value, type(value))


@settings(max_examples=100, deadline=None)
@given(st.lists(values, min_size=1, max_size=3))
def test_a_shell_reads_a_line_back_as_its_words(found):
    words = override_words({f"a{n}": value for n, value in enumerate(found)})
    assert shlex.split(one_line(words)) == words
    if are_plain(words):  # then it may stand as $(…), where blanks alone part words
        assert one_line(words).split() == words


def test_what_is_usual_needs_no_quotes():
    words = override_words({
        "optimizer.learning_rate": 1e-05, "model.hidden": [64, 32], "train.clip_norm": None,
        "train.remat": ["blocks/*"], "data.path": "/data/set-1_a.npz", "a": True, "b": "gs://b/c",
    })  # fmt: skip
    assert words[:3] == ["optimizer.learning_rate=1e-05", "model.hidden=[64,32]",
                         "train.clip_norm=null"]  # fmt: skip
    assert words[3:] == ["train.remat=[blocks/*]", "data.path=/data/set-1_a.npz", "a=true",
                         "b=gs://b/c"]  # fmt: skip
    assert are_plain(words)


@pytest.mark.parametrize(
    "text", ["null", "True", "NaN", "1", "1e3", "2026_01", "", " a", ".5", "-1"]
)
def test_text_that_looks_like_something_else_stays_text(text):
    [word] = override_words({"a": text})
    assert word == f"a='{text}'"
