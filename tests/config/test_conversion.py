"""From nested values to a checked configuration and back."""

import dataclasses
import math
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functorch_kit.config import GROUPS, MLP, Config, ConfigError, from_dict, slots, to_dict
from functorch_kit.config.settings import setting_of

MODELS = "choose cnn, mlp, resnet18, resnet34 or 32 others, see --help"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=8,
)
CHOICES = [
    (group, name) for group, options in GROUPS.items() for name in options if len(options) > 1
]


def nested(name: str, value: Any) -> dict[str, Any]:
    group, _, key = name.rpartition(".")
    return {group: {key: value}} if group else {key: value}


def of_choice(name: str, value: Any, choice: str) -> dict[str, Any]:
    values = nested(name, value)
    group, _, option = choice.partition("=")
    if choice and len(GROUPS[group]) > 1:
        values[group]["name"] = option
    return values


def refusal(values: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        from_dict(values)
    message = str(caught.value)
    assert "\n" not in message
    assert message.isprintable()
    return message


def test_the_default_configuration_is_the_main_job():
    assert to_dict(Config()) == {
        "model": {"name": "cnn", "features": [32, 64], "dense": 128, "dropout": 0.3},
        "data": {"name": "digits"},
        "optimizer": {
            "name": "adam", "learning_rate": 1e-3, "b1": 0.9, "b2": 0.999, "eps": 1e-8,
            "eps_root": 0.0, "nesterov": False, "learning_rates": [], "layer_decay": None,
            "layers": [],
        },
        "schedule": {"name": "constant"},
        "train": {
            "steps": math.ceil(20 * 1258 / 64), "batch_size": 64, "eval_every": 20,
            "checkpoint_every": None, "log_every": 10,
            "keep_latest": 2, "keep_best": 1, "keep_every": None, "form": "auto",
            "label_smoothing": 0.0,
            "init_scale": 1.0,
            "schedule_steps": None, "clip_norm": None, "clip_value": None, "clip_adaptive": None,
            "patience": None, "best": "loss", "best_mode": "auto", "max_seconds": None,
            "accumulate": 1, "precision": "float32", "precision_keep": [], "remat": [],
            "remat_policy": "nothing", "frozen": [], "ema_decay": None, "evaluate": "auto",
            "nonfinite": "off", "max_rollbacks": 3, "gradient_norm": False,
        },
        "mesh": {"data": None, "fsdp": 1, "tensor": 1, "sequence": 1},
        "seed": 0, "init_from": None, "run_dir": None, "resume": None, "overwrite": False,
        "quiet": False,
    }  # fmt: skip


def test_nothing_given_is_the_default():
    assert from_dict({}) == Config()


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_survives_the_way_to_plain_values_and_back(group: str, name: str):
    section = GROUPS[group][name]
    needs_path = any(setting_of(field).needed for field in dataclasses.fields(section))
    made = section(path="a.npz") if needs_path else section()
    config = dataclasses.replace(Config(), **{group: made})
    assert from_dict(to_dict(config)) == config


def test_lists_become_tuples_and_whole_numbers_become_floats():
    config = from_dict({"model": {"name": "mlp", "hidden": [3, 4], "dropout": 0}})
    assert config.model == MLP(hidden=(3, 4), dropout=0.0)
    assert type(config.model.dropout) is float


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer": {"learning_rat": 1}},
         "optimizer.learning_rat is not a setting: did you mean optimizer.learning_rate?"),
        ({"learning_rate": 1},
         "learning_rate is not a setting: did you mean optimizer.learning_rate?"),
        ({"modell": {}}, "modell is not a setting: did you mean model?"),
        ({"zzz": 1}, "zzz is not a setting: see --help"),
        ({"data": {"qqq": 1}}, "data.qqq is not a setting: data=digits takes none"),
        ({"train": {"steps": "abc"}}, "train.steps is 'abc': give a whole number, 1 or more"),
        ({"train": {"steps": 10.0}}, "train.steps is 10.0: give a whole number, 1 or more"),
        ({"train": {"steps": True}}, "train.steps is true: give a whole number, 1 or more"),
        ({"train": {"steps": None}}, "train.steps is null: give a whole number, 1 or more"),
        ({"train": {"steps": 2**31}},
         "train.steps is 2147483648: give a whole number from 1 to 2147483647"),
        ({"train": {"batch_size": 0}}, "train.batch_size is 0: give a whole number, 1 or more"),
        ({"train": {"form": "chnk"}},
         "train.form is 'chnk': choose auto, chunk or single; did you mean chunk?"),
        ({"model": {"name": "resnett"}},
         f"model=resnett is not a choice: {MODELS}; did you mean resnet18?"),
        ({"model": {"name": "mpl"}},
         f"model=mpl is not a choice: {MODELS}; did you mean mlp?"),
        ({"model": {"name": ["cnn"]}}, f"model=['cnn'] is not a choice: {MODELS}"),
        ({"model": None}, f"model=null is not a choice: {MODELS}"),
        ({"model": {"name": "mlp", "features": [3]}},
         "model.features is a setting of model=cnn, not of model=mlp"),
        ({"model": {"dropout": 1}},
         "model.dropout is 1: give a number from 0 up to but not including 1"),
        ({"model": {"features": 3}},
         "model.features is 3: give a list of whole numbers, each 1 or more, such as [64, 64]"),
        ({"model": {"features": [3, "x"]}},
         "model.features[1] is 'x': give a whole number, 1 or more"),
        ({"model": {"features": []}}, "model.features has 0 entries: give from 1 to 64"),
        ({"data": {"name": "synthetic_images", "shape": [8, 8]}},
         "data.shape has 2 entries: give a list of 3 whole numbers, each 1 or more, such as"
         " [64, 64, 64]"),
        ({"optimizer": {"learning_rate": 0}},
         "optimizer.learning_rate is 0: give a number above 0"),
        ({"optimizer": {"learning_rate": math.nan}},
         "optimizer.learning_rate is nan: give a number above 0"),
        ({"optimizer": {"learning_rate": math.inf}},
         "optimizer.learning_rate is inf: give a number above 0"),
        ({"optimizer": {"learning_rate": 10**400}},
         "optimizer.learning_rate is 1" + "0" * 58 + "…: give a number above 0 and up to 1e+06"),
        ({"optimizer": {"learning_rate": "1e-3"}},
         "optimizer.learning_rate is '1e-3': give a number above 0"),
        ({"optimizer": {"b2": 0.9999999999}},
         "optimizer.b2 is 0.9999999999, which is 1 in 32 bits: give a number from 0 up to but not"
         " including 1"),
        ({"optimizer": {"learning_rate": 1e-60}},
         "optimizer.learning_rate is 1e-60, which is 0 in 32 bits: give a number above 0 and up to"
         " 1e+06"),
        ({"overwrite": "yes"}, "overwrite is 'yes': give true or false"),
        ({"overwrite": 1}, "overwrite is 1: give true or false"),
        ({"run_dir": 3}, "run_dir is 3: give text"),
        ({"run_dir": "a\0b"}, "run_dir is 'a\\x00b': give text"),
        ({"data": {"name": "npz"}}, "data.path is missing: give data.path=<file.npz>"),
        ({"data": {"name": "npz", "path": "a", "test": 0.5, "validation": 0.5}},
         "data.validation 0.5 and data.test 0.5 leave nothing to train on: give shares whose sum"
         " is below 1"),
        ({"data": {"name": "spirals", "test": 0.5, "validation": 0.5}},
         "data.validation 0.5 and data.test 0.5 leave nothing to train on: give shares whose sum"
         " is below 1"),
        ({"data": {"name": "synthetic_images", "count": 4, "classes": 5}},
         "data.classes is 5: data.count, 4, must be as many"),
        ({"data": {"name": "synthetic_images", "count": 10**8}},
         "data.count × data.shape makes 4,578 GiB: give sizes that make 8 GiB at most"),
        ({"data": {"name": "gaussian", "count": 10**8}},
         "data.count × data.inputs makes 376 GiB: give sizes that make 8 GiB at most"),
        ({"model": {"name": "gpt_nano", "width": 12, "position": "rotary"}},
         "model.position is 'rotary', which turns pairs, and a head has 3 entries: give a"
         " model.width that makes them even"),
        ({"model": {"name": "gpt_nano", "kv_heads": 3}},
         "model.heads is 4: model.kv_heads, 3, must divide it"),
        ({"model": {"name": "gpt_nano", "rotary_base": 5e5}},
         "model.rotary_base needs model.position=rotary: give both, or neither"),
        ({"model": {"name": "llama_tiny", "exact_gelu": False}},
         "model.exact_gelu means nothing to model.mlp=swiglu: leave it at true"),
        ({"model": {"name": "vit_b16", "heads": 7}},
         "model.width is 768: model.heads, 7, must divide it"),
        ({"model": {"name": "gpt_nano", "width": 130}},
         "model.width is 130: model.heads, 4, must divide it"),
        ({"optimizer": {"name": "sgd", "nesterov": True}},
         "optimizer.nesterov needs momentum: give optimizer.momentum=0.9, say"),
        ({"resume": "a", "overwrite": True},
         "resume and overwrite exclude each other: give one of them"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line_with_the_remedy(values: dict, message: str):
    assert refusal(values) == message


def test_a_configuration_that_is_no_dict_is_refused():
    with pytest.raises(ConfigError, match=r"a configuration is \[1\]: give names with values"):
        from_dict([1])


@settings(deadline=None, max_examples=30)  # each is refused in every group
@given(name=st.text(max_size=300), value=JSON)
def test_no_unknown_name_is_accepted_and_ignored(name: str, value: Any):
    if name not in {field.name for field in dataclasses.fields(Config)}:
        refusal({name: value})
    for group in GROUPS:
        if name != "name" and f"{group}.{name}" not in slots():
            refusal({group: {name: value}})


@settings(deadline=None)
@given(data=st.data(), value=JSON)
def test_any_value_is_kept_as_it_was_given_or_refused_in_one_line(data: Any, value: Any):
    name = data.draw(st.sampled_from(sorted(slots())))
    slot = data.draw(st.sampled_from(slots()[name]))
    values = of_choice(name, value, slot.choice)
    if name == "train.best":
        values["train"]["best_mode"] = "min"
    if name != "data.path" and slot.choice == "data=npz":
        values["data"]["path"] = "a.npz"
    try:
        kept = to_dict(from_dict(values))
    except ConfigError:
        refusal(values)
        return
    for part in name.split("."):
        kept = kept[part]
    assert kept == value
    assert isinstance(kept, bool) == isinstance(value, bool)


@settings(deadline=None)
@given(value=JSON)
def test_any_value_in_place_of_a_group_is_refused_in_one_line(value: Any):
    if value not in ({}, {"name": "cnn"}):
        refusal({"model": value})


def test_a_number_too_long_to_be_written_is_refused_like_any_other():
    assert "a number of thousands of digits" in refusal({"train": {"steps": 10**5000}})


def test_the_schema_loads_without_jax():
    # `python -c` in a process of its own: here JAX is loaded already.
    import subprocess

    code = "import functorch_kit.config, sys; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=".").returncode == 0
