"""Settings of a step that contradict one another, and schedules, clipping and options by name."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import train
from functorch_kit.config import (
    GROUPS,
    MLP,
    OPTIMIZERS,
    SGD,
    AdamW,
    Config,
    ConfigError,
    Cosine,
    OneCycle,
    Train,
    build,
    from_dict,
    load_run,
    resumed,
    to_dict,
    traced,
)
from functorch_kit.config.optimization import make_optimizer, make_options
from functorch_kit.config.runs import saved
from functorch_kit.config.schedules import SCHEDULES
from functorch_kit.config.settings import setting_of
from functorch_kit.errors import UserError
from functorch_kit.run import RunFolder

# optax runs in most of these.
pytestmark = pytest.mark.usefixtures("standard_promotion", "compiled_quickly")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"schedule": {"name": "cosine"}, "optimizer": {"name": "lbfgs"}},
         "schedule=cosine needs a learning rate to follow it, and optimizer=lbfgs sizes its own"
         " steps: give schedule=constant"),
        ({"schedule": {"name": "warmup"}, "optimizer": {"name": "rprop"}},
         "schedule=warmup needs a learning rate to follow it, and optimizer=rprop sizes its own"
         " steps: give schedule=constant"),
        ({"schedule": {"name": "piecewise", "factors": [0.1]}},
         "schedule.boundaries has 2 entries and schedule.factors 1: give one factor for each"
         " boundary"),
        ({"train": {"schedule_steps": 10}},
         "train.schedule_steps means nothing to schedule=constant, which has no end: give null"),
        ({"optimizer": {"no_decay": ["**/bias"]}},
         "optimizer.no_decay is a setting of optimizer=adamw, optimizer=acprop, optimizer=adadelta,"
         " optimizer=adafactor or 17 others, not of optimizer=adam"),
        ({"optimizer": {"name": "lamb", "no_decay": ["**/bias"]}},
         "optimizer.no_decay means nothing without weight decay: give optimizer.weight_decay=0.1,"
         " say"),
        ({"optimizer": {"layer_decay": 0.5}},
         "optimizer.layer_decay needs the layers: give optimizer.layers=[<paths from the input to"
         " the output>]"),
        ({"optimizer": {"layers": ["head"]}},
         "optimizer.layers needs a factor: give optimizer.layer_decay=0.75, say"),
        ({"optimizer": {"learning_rates": ["head"]}},
         "optimizer.learning_rates[0] is 'head': give a path pattern=factor, such as stem=0.1"),
        ({"optimizer": {"learning_rates": ["head=fast"]}},
         "optimizer.learning_rates[0] is 'head=fast': give a path pattern=factor, such as"),
        ({"optimizer": {"learning_rates": ["head=-1"]}},
         "the factor in optimizer.learning_rates[0] is -1.0: give a number, 0 or more"),
        ({"optimizer": {"learning_rates": "head=1"}},
         "optimizer.learning_rates is 'head=1': give a list of <path pattern>=<factor>, such as"
         ' ["stem=0.1"]'),
        ({"train": {"frozen": "head"}},
         'train.frozen is \'head\': give a list of path patterns, such as ["**/bias"]'),
        ({"optimizer": {"name": "muonn"}}, "did you mean muon?"),
        ({"optimizer": {"name": "lion", "eps": 1e-8}}, "optimizer.eps is a setting of "),
        ({"optimizer": {"name": "schedule_free_sgd", "b1": 0}},
         "optimizer.b1 is 0: give a number above 0"),
        ({"train": {"clip_norm": 0}}, "train.clip_norm is 0: give a number above 0"),
        ({"train": {"ema_decay": 1}},
         "train.ema_decay is 1: give a number from 0 up to but not including 1"),
        ({"train": {"accumulate": 3}},
         "train.accumulate is 3: it must divide train.batch_size, 64"),
        ({"train": {"evaluate": "ema"}},
         "train.evaluate is 'ema', and there is none: give train.ema_decay=0.999"),
        ({"train": {"precision": "half"}},
         "train.precision is 'half': choose float32, bf16, fp16 or float64"),
        ({"train": {"precision_keep": ["head"]}},
         "train.precision_keep means nothing to train.precision=float32, in which everything"
         " computes alike: give train.precision=bf16, say"),
        ({"train": {"remat_policy": "dots"}},
         "train.remat_policy is for the parts in train.remat: give train.remat=[<paths>]"),
        ({"optimizer": {"name": "lbfgs"}, "train": {"clip_norm": 1}},
         "train.clip_norm would mislead the line search of optimizer=lbfgs: give null"),
        ({"optimizer": {"name": "lbfgs"}, "train": {"precision": "fp16"}},
         "train.precision is 'fp16', whose overflows would end the line search of optimizer=lbfgs:"
         " give float32"),
        ({"train": {"best": "acuracy"}},
         "train.best is 'acuracy', whose name does not say which way is better: give"
         " train.best_mode=max or train.best_mode=min; did you mean accuracy?"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused_in_one_line_with_the_remedy(
    values: dict, message: str
):
    with pytest.raises(ConfigError) as caught:
        from_dict(values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer": {"name": "adamw", "no_decay": ["**/bais"]}},
         r"no_decay: '\*\*/bais' names nothing, did you mean '.*/bias'"),
        ({"optimizer": {"learning_rates": ["haed=0.1"]}},
         "learning_rates: 'haed' names nothing, did you mean 'head'"),
        ({"train": {"frozen": ["haed"]}}, "frozen: 'haed' names nothing, did you mean 'head'"),
        ({"optimizer": {"name": "muon"}, "model": {"name": "mlp", "hidden": []}},
         "muon: no parameter is a hidden matrix"),
    ],
)  # fmt: skip
def test_what_does_not_go_with_the_model_is_refused_before_anything_is_compiled(
    values: dict, message: str
):
    experiment = build(from_dict({"model": {"name": "mlp", "hidden": [4]}, **values}))
    x_spec = experiment.data.train.spec["x"]
    init = train.make_init(experiment.model, experiment.optimizer, x_spec, experiment.options)
    with pytest.raises(UserError, match=message):
        jax.eval_shape(init, train.as_hparams(experiment.hparams), jax.random.key(0))


def rates(config: Config, steps: int, hparams: Any = None) -> np.ndarray:
    """The learning rates that a configuration of SGD has at each step."""
    hparams = train.as_hparams(traced(config)) if hparams is None else hparams
    optimizer = make_optimizer(config, hparams)
    one = {"w": jnp.ones(1)}

    def step(state: Any, _: Any) -> Any:
        update: Any
        update, state = optimizer.update(one, state, one)
        return state, -update["w"][0]

    return np.asarray(jax.lax.scan(step, optimizer.init(one), length=steps)[1])


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({"name": "constant"}, [0.5] * 10),
        ({"name": "warmup", "warmup_steps": 4}, [0, 0.125, 0.25, 0.375, *[0.5] * 6]),
        ({"name": "linear", "final": 0.2}, 0.5 - 0.04 * np.arange(10)),
        ({"name": "cosine"}, 0.25 * (1 + np.cos(np.pi * np.arange(10) / 10))),
        ({"name": "wsd", "decay_share": 0.5}, [*[0.5] * 6, 0.4, 0.3, 0.2, 0.1]),
        ({"name": "one_cycle", "rise": 0.5, "initial": 0, "final": 0},
         0.25 * (1 - np.cos(np.pi * np.arange(10) / 5))),
        ({"name": "piecewise", "boundaries": [3, 6], "factors": [0.5, 0.1]},
         [*[0.5] * 3, *[0.25] * 3, *[0.025] * 4]),
    ],
)  # fmt: skip
def test_a_schedule_multiplies_the_learning_rate(schedule: dict, expected: Any):
    values = {"optimizer": {"name": "sgd", "learning_rate": 0.5}, "train": {"steps": 10}}
    config = from_dict({**values, "schedule": schedule})
    np.testing.assert_allclose(rates(config, 10), expected, rtol=1e-5, atol=1e-7)


def test_a_run_that_goes_on_with_more_steps_follows_the_schedule_it_began(tmp_path: Any):
    config = Config(optimizer=SGD(0.5), schedule=Cosine(), train=Train(steps=10))
    RunFolder(tmp_path).begin(saved(config))
    assert load_run(tmp_path).train.schedule_steps == 10
    longer = Config(resume=str(tmp_path), train=Train(steps=20))
    kept = resumed(longer, ["resume", "train.steps"])
    np.testing.assert_array_equal(rates(kept, 10), rates(config, 10))
    np.testing.assert_allclose(rates(kept, 20)[10:], 0, atol=1e-8)
    longer.train.schedule_steps = 20
    assert from_dict(to_dict(longer)) == longer  # of the default schedule, which has no end
    stretched = resumed(longer, ["resume", "train.steps", "train.schedule_steps"])
    assert rates(stretched, 20)[10] == pytest.approx(0.25)
    assert saved(stretched)["train"]["schedule_steps"] == 20


def test_a_run_of_a_schedule_without_an_end_is_not_stretched(tmp_path: Any):
    RunFolder(tmp_path).begin(saved(Config()))
    asked = Config(resume=str(tmp_path), train=Train(schedule_steps=20))
    with pytest.raises(ConfigError, match="schedule_steps means nothing to schedule=const"):
        resumed(asked, ["resume", "train.schedule_steps"])


def test_a_free_average_is_evaluated_without_being_asked_for_and_the_parameters_on_request():
    free = Config(optimizer=OPTIMIZERS["schedule_free_adamw"]())
    assert make_options(free).evaluate is train.schedule_free_params
    assert make_options(Config(train=Train(ema_decay=0.9))).evaluate == "ema"
    free.train.evaluate = "params"
    assert make_options(free).evaluate == make_options(Config()).evaluate == "params"


@pytest.mark.parametrize(
    ("metric", "way"),
    [("loss", "min"), ("accuracy", "max"), ("top_5_accuracy", "max"), ("perplexity", "min"),
     ("f1", "max"), ("mean_squared_error", "min")],
)  # fmt: skip
def test_a_metric_says_by_its_name_which_way_is_better(metric: str, way: str):
    made = build(Config(model=MLP(), train=Train(best=metric))).fit_arguments()
    assert made["best"] == (metric, way)


# Every traced setting of the schema, with a configuration in which it is an argument.
ON: dict[str, Any] = {
    "label_smoothing": 0.1, "clip_norm": 1e-3, "clip_value": 1e-3, "clip_adaptive": 1e-2,
    "init_scale": 0.5, "ema_decay": 0.9, "steps": 30, "batch_size": 8,
}  # fmt: skip


# Schedules all of whose numbers count within three steps.
EARLY: dict[str, Any] = {
    "warmup": {"warmup_steps": 2}, "linear": {"warmup_steps": 1}, "cosine": {"warmup_steps": 1},
    "one_cycle": {"rise": 0.03, "final": 0.1}, "wsd": {"warmup_steps": 1, "decay_share": 0.98},
    "piecewise": {"boundaries": (1, 2), "factors": (0.5, 0.5), "warmup_steps": 1},
}  # fmt: skip


def changed(config: Config) -> Config:
    """Another value of everything that is an argument."""
    values = to_dict(config)
    for group in values.keys() & GROUPS:
        section = getattr(config, group)
        for field in dataclasses.fields(section):
            setting, value = setting_of(field), values[group][field.name]
            if setting.pairs:
                values[group][field.name] = [each.replace("=0.", "=0.0") for each in value]
            elif setting.traced and isinstance(value, list):
                values[group][field.name] = [entry / 2 for entry in value]
                if "boundaries" in field.name:
                    values[group][field.name] = [entry + 1 for entry in value]
            elif setting.traced and isinstance(value, int):
                values[group][field.name] = value + 3
            elif setting.traced and value is not None:
                values[group][field.name] = (value or 0.3) / 2
    return from_dict(values)


@pytest.mark.parametrize(
    "schedule",
    [
        "cosine",
        "one_cycle",
        "wsd",
        "piecewise",
        *(pytest.param(name, marks=pytest.mark.soak) for name in ("warmup", "linear")),
    ],
)
def test_another_value_of_any_argument_counts_and_does_not_compile_again(schedule: str):
    optimizer = AdamW(
        eps_root=1e-9,
        weight_decay=0.5,
        learning_rates=("hidden_0=0.5",),
        layer_decay=0.9,
        layers=("hidden_0", "head"),
    )
    train_settings = Train(**ON)
    if schedule not in ("warmup", "piecewise"):
        train_settings.schedule_steps = 30
    config = Config(
        model=MLP(hidden=(4,), dropout=0.1),
        optimizer=optimizer,
        schedule=SCHEDULES[schedule](**EARLY[schedule]),
        train=train_settings,
    )
    experiment, other = build(config), build(changed(config))
    assert experiment.hparams.keys() == other.hparams.keys()
    assert len(experiment.hparams) >= 14
    hparams = train.as_hparams(experiment.hparams)
    x_spec, options = experiment.data.train.spec["x"], experiment.options
    init: Any = jax.jit(train.make_init(experiment.model, experiment.optimizer, x_spec, options))
    step: Any = jax.jit(train.make_train_step(experiment.objective, experiment.optimizer, options))
    batch = experiment.data.train(0)

    def after_three_steps(hparams: Any) -> list[np.ndarray]:
        reached = init(hparams, jax.random.key(0))
        for _ in range(3):
            reached, _ = step(hparams, reached, batch)
        return [np.asarray(leaf) for leaf in jax.tree.leaves(reached.replace(key=()))]

    before = after_three_steps(hparams)
    for name, value in other.hparams.items():
        after = after_three_steps(hparams | train.as_hparams({name: value}))
        changes = any((x != y).any() for x, y in zip(before, after, strict=True))
        assert changes, name
    assert step._cache_size() == init._cache_size() == 1


def test_one_cycle_begins_above_zero():
    assert rates(Config(optimizer=SGD(0.5), schedule=OneCycle()), 1)[0] == pytest.approx(0.02)
