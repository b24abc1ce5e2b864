"""Misspelt names, and overrides one by one."""

import random
from collections.abc import Iterator

import pytest

from functorch_kit.config import (
    Config,
    ConfigError,
    check_choice,
    check_name,
    check_value,
    describe,
    is_text,
    refuse_added,
    slots,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz_."


def one_edit_typos(name: str) -> Iterator[str]:
    for place in range(len(name)):
        yield name[:place] + name[place + 1 :]
        yield name[:place] + name[place : place + 2][::-1] + name[place + 2 :]
        for letter in LETTERS:
            yield name[:place] + letter + name[place:]
            yield name[:place] + letter + name[place + 1 :]


def test_95_percent_of_one_edit_typos_get_the_right_suggestion():
    typos = [
        (typo, name)
        for name in slots()
        for typo in one_edit_typos(name)
        if typo not in slots() and typo.split(".")[0] not in slots()
    ]
    typos = random.Random(0).sample(typos, 300)
    right = 0
    for typo, name in typos:
        with pytest.raises(ConfigError) as caught:
            check_name(typo)
        right += str(caught.value).endswith(f"did you mean {name}?")
    assert right >= 0.95 * len(typos)


@pytest.fixture(scope="module")
def described() -> str:
    return describe()


@pytest.mark.parametrize("name", sorted(slots()))
def test_every_setting_is_known_and_described(name: str, described: str):
    check_name(name)
    assert f"{name}=" in described
    assert all(slot.setting.text for slot in slots()[name])


def test_a_choice_is_not_changed_under_its_settings():
    with pytest.raises(
        ConfigError, match=r"model\.name follows from the choice: give model=gpt_nano"
    ):
        check_name("model.name")


def test_a_value_is_refused_only_if_no_choice_takes_it():
    check_value("model.dropout", 0.5)
    check_value("train.steps", "${seed}")  # seen when the configuration is composed
    with pytest.raises(ConfigError, match=r"model\.dropout is 2"):
        check_value("model.dropout", 2)


@pytest.mark.parametrize("value", [None, 3, ["cnn"], {"name": "cnn"}, "", "CNN", "cnn\nmlp"])
def test_what_is_no_choice_is_refused_in_one_line(value: object):
    with pytest.raises(ConfigError, match="is not a choice: choose cnn or mlp") as caught:
        check_choice("model", value, ["cnn", "mlp"])
    assert "\n" not in str(caught.value)


def test_an_added_setting_is_refused_with_the_nearest_that_exists():
    message = str(refuse_added("train.stps", "++train.stps=4", slots()))
    added = "'++train.stps=4' adds a setting: only those that exist can be changed"
    assert message == f"{added}; did you mean train.steps?"
    assert "'~seed' removes a setting" in str(refuse_added("seed", "~seed", slots()))


def test_settings_of_text_are_known_for_quoting():
    texts = {name for name in slots(Config) if is_text(name)}
    assert texts == {
        "data.check",
        "data.dtype",
        "data.path",
        "data.target",
        "data.tokenizer",
        "model.ending",
        "model.mlp",
        "model.norm",
        "model.position",
        "model.stem",
        "train.form",
        "train.best",
        "train.best_mode",
        "train.evaluate",
        "train.nonfinite",
        "train.precision",
        "train.remat_policy",
        "optimizer.preconditioning",
        "optimizer.variant",
        "init_from",
        "run_dir",
        "resume",
    }
