"""From a configuration to functions and data: every setting arrives, what would not is refused."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functorch_kit import train
from functorch_kit.config import (
    CNN,
    GROUPS,
    MLP,
    SGD,
    Adam,
    AdamW,
    Config,
    ConfigError,
    Cosine,
    Gaussian,
    GPTNano,
    Npz,
    Piecewise,
    ResNet18,
    Spirals,
    SyntheticImages,
    Text,
    Train,
    build,
    from_dict,
    slots,
    to_dict,
    traced,
)
from functorch_kit.config.models import MODELS, VGG11, AlexNet, CharRNN
from functorch_kit.data import DataError
from functorch_kit.errors import UserError

pytestmark = pytest.mark.usefixtures("standard_promotion")  # optax runs in most of these

MLP_OF_4 = MLP(hidden=(4,), dropout=0.1)
SMALL: dict[str, Any] = {
    "model=cnn": CNN(features=(2,), dense=4),
    "model=mlp": MLP_OF_4,
    "model=resnet18": ResNet18(width=2),
    "model=gpt_nano": GPTNano(layers=1, heads=2, width=4, dropout=0.1),
    "model=char_rnn": CharRNN(layers=1, width=2, dropout=0.1),
    "model=alexnet": AlexNet(dense=2),
    "model=vgg11": VGG11(dense=2),
    "model=vit_ti16": MODELS["vit_ti16"](layers=1, heads=1, width=4, patch=4, dropout=0.1),
    "model=mixer_s16": MODELS["mixer_s16"](1, 4, 4, 2, 2, dropout=0.1),
    "data=synthetic_images": SyntheticImages(count=40, shape=(4, 4, 1), classes=4),
    "data=gaussian": Gaussian(count=16, inputs=5, outputs=2),
    "data=spirals": Spirals(count=40, validation=0.2, test=0.2),
    "optimizer=sgd": SGD(momentum=0.5, layer_decay=0.5, layers=("hidden_0", "head")),
    "optimizer=adamw": AdamW(layer_decay=0.5, layers=("hidden_0", "head")),
    "schedule=cosine": Cosine(warmup_steps=10),
    "schedule=piecewise": Piecewise(warmup_steps=10),
}
# What only goes with one another.
LARGE_IMAGES = {"data": SyntheticImages(count=20, shape=(64, 64, 3), classes=2)}
PARTNER = {
    "model=gpt_nano": {"data": Text()},
    "model=char_rnn": {"data": Text()},
    "data=text": {"model": SMALL["model=gpt_nano"]},
    **dict.fromkeys(("model=alexnet", "model=vgg11"), LARGE_IMAGES),
}
# Published sizes are settings of one of these at other defaults, which test_init_from compares;
# it takes long to trace an Inception.
SIZES = {f"model={name}" for name in MODELS} - {*SMALL}
OTHER = {
    "mesh.data": 2,
    "train.form": "single",
    "train.best": "accuracy",
    "train.best_mode": "max",
    "train.precision": "fp16",
    "train.precision_keep": [],
    "train.remat": ["head"],
    "train.remat_policy": "nothing",
    "train.frozen": ["hidden_0/bias"],
    "train.evaluate": "params",
    "train.nonfinite": "raise",
    "train.patience": 2,
    "optimizer.layers": ["head"],
    "optimizer.learning_rates": ["head=0.5"],
    "optimizer.no_decay": ["head/bias"],
    "run_dir": "a",
    "resume": "b",
    "model.stem": "cifar",
    "model.norm": "rms",
    "model.position": "rotary",
    "model.mlp": "swiglu",
    "model.ending": "zero",
    "model.kv_heads": 1,
    "model.patch": 2,
    "schedule.boundaries": [1, 2],
}
HALVES = {"optimizer.layer_decay", "train.clip_norm", "model.epsilon"}
LONGER = {"model.features", "model.hidden"}
# What the settings of training need around them, to have an effect.
AROUND = Train(
    batch_size=8, precision="bf16", precision_keep=("head",), remat=("hidden_0",),
    remat_policy="dots", ema_decay=0.9, nonfinite="skip",
)  # fmt: skip
# Each with the values it needs around it; `data.path` is what the tests of Npz are about, and
# `data.tokenizer` what those of vocabularies are; most optimizers have their own in
# test_optimizers, data in files in test_data_settings, `init_from` in test_init_from.
IN_FILES = {f"data={name}" for name in ("idx", "cifar", "images", "npy", "table", "tokens")}
ALL = [
    (name, slot.choice)
    for name, places in slots().items()
    for slot in places
    if name not in ("data.path", "data.tokenizer", "init_from", "model.rotary_base")
    and slot.choice not in IN_FILES | SIZES
    and (slot.choice in ("optimizer=sgd", "optimizer=adamw") or "optimizer=" not in slot.choice)
]


@pytest.fixture(scope="module")
def npz_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "points.npz"
    random = np.random.default_rng(0)
    np.savez(path, x=random.normal(size=(60, 3)).astype(np.float32), y=np.arange(60) % 3)
    return str(path)


def fingerprint(config: Config) -> dict[str, Any]:
    """Everything that a configuration can change, in a form that compares."""
    experiment = build(config)
    hparams = train.as_hparams(experiment.hparams)
    batch = experiment.data.train(3)
    x_spec, options = experiment.data.train.spec["x"], experiment.options
    init = train.make_init(experiment.model, experiment.optimizer, x_spec, options)
    state = jax.eval_shape(init, hparams, jax.random.key(0))
    step = train.make_train_step(experiment.objective, experiment.optimizer, options)
    arguments = experiment.fit_arguments()
    functions = ("model", "objective", "optimizer", "data", "stop", "config")
    stop = arguments["stop"]
    tail = [{"loss": 1.0, "accuracy": 1.0}] * 4
    return {
        **{name: value for name, value in arguments.items() if name not in functions},
        "stop": stop and [stop(tail[:count]) for count in range(1, 5)],
        "init": str(jax.make_jaxpr(init)(hparams, jax.random.key(0))),
        "program": str(jax.make_jaxpr(step)(hparams, state, batch)),
        "batch": hashlib.sha256(b"".join(batch[name].tobytes() for name in "xy")).hexdigest(),
        "parts": [part and part.order.count for part in experiment.data[:3]],
    }


UNCHANGED: dict[str, dict[str, Any]] = {}


def unchanged(base: Config) -> dict[str, Any]:
    """``fingerprint``, once for all settings that are changed from there."""
    known = repr(to_dict(base))
    if known not in UNCHANGED:
        UNCHANGED[known] = fingerprint(base)
    return UNCHANGED[known]


def another(name: str, value: Any, choice: str) -> Any:
    if choice == "model=gpt_nano" and name in ("model.heads", "model.width"):
        return 2 * value
    if name in OTHER:
        return OTHER[name]
    if isinstance(value, bool):
        return not value
    if value is None:
        return 0.5 if name in HALVES else 7
    if isinstance(value, tuple):
        return (*value, 3) if name in LONGER else (*value[:-1], value[-1] + 2)
    return value + 1 if isinstance(value, int) else value * 0.5 + 0.01


@pytest.mark.parametrize(("name", "choice"), ALL)
def test_every_setting_changes_something(name: str, choice: str, npz_file: str):
    group, _, option = choice.partition("=")
    base = Config(model=MLP_OF_4, schedule=Cosine(), train=Train(batch_size=8))
    if group == "train":
        base.train = AROUND
    elif group == "mesh":  # only a text has a context to split
        base.model, base.data = SMALL["model=gpt_nano"], Text()
    elif choice:
        section = SMALL.get(choice) or GROUPS[group][option]()
        base = dataclasses.replace(base, **{group: section}, **PARTNER.get(choice, {}))
    if isinstance(base.data, Npz):
        base.data.path = npz_file
    values = to_dict(base)
    owner = values[group] if choice else values
    key = name.rpartition(".")[2]
    before = getattr(getattr(base, group), key) if choice else getattr(base, key)
    owner[key] = another(name, before, choice)
    changed = from_dict(values)
    assert changed != base
    assert fingerprint(changed) != unchanged(base)


def test_the_same_configuration_gives_the_same_thing():
    config = Config(model=MLP(hidden=(4,), dropout=0.1), train=Train(batch_size=8))
    assert fingerprint(config) == fingerprint(config)


@pytest.mark.parametrize("choice", sorted(name for name in SMALL if "data" not in name))
def test_a_traced_setting_changes_a_number_and_no_program(choice: str):
    group = choice.partition("=")[0]
    config = dataclasses.replace(
        Config(
            model=MLP_OF_4,
            train=Train(batch_size=8, label_smoothing=0.1, clip_norm=1.0, ema_decay=0.9),
        ),
        **{group: SMALL[choice]},
        **PARTNER.get(choice, {}),
    )
    values = to_dict(config)
    for name in traced(config):
        owner, key = name.split(".")
        key, entry = [*key.rstrip("]").split("["), ""][:2]
        if key == "schedule_steps":
            values[owner][key] = 30
        elif entry:
            values[owner][key][int(entry)] *= 2
        else:
            values[owner][key] *= 2 if isinstance(values[owner][key], int) else 0.5
    changed = from_dict(values)
    assert len(traced(config)) >= 5
    assert traced(changed).keys() == traced(config).keys()
    assert all(traced(changed)[name] != value for name, value in traced(config).items() if value)
    assert fingerprint(changed)["program"] == fingerprint(config)["program"]


def test_what_is_off_is_no_hyperparameter_and_costs_no_random_numbers():
    net = CNN(features=(2,), dense=4, dropout=0.0)
    config = Config(model=net, optimizer=SGD())
    assert traced(config) == {"optimizer.learning_rate": 0.01}
    assert "random_bits" not in fingerprint(config)["program"]
    net.dropout = 0.1
    assert "random_bits" in fingerprint(config)["program"]


@pytest.mark.parametrize(("momentum", "leaves"), [(0.0, 0), (0.5, 1)])
def test_momentum_keeps_a_running_sum_and_zero_keeps_none(momentum: float, leaves: int):
    experiment = build(Config(model=MLP(hidden=(4,)), optimizer=SGD(momentum=momentum)))
    optimizer = experiment.optimizer(train.as_hparams(experiment.hparams))
    assert len(jax.tree.leaves(optimizer.init({"w": np.ones(2, np.float32)}))) == leaves


@pytest.mark.parametrize(
    ("optimizer", "size"),
    [
        # The first step of Adam has the size of the learning rate, whatever the gradient.
        (Adam(learning_rate=0.1, eps=1e-12), 0.1),
        # AdamW adds learning rate × decay × weight, 0.1 × 0.5 × 2.
        (AdamW(learning_rate=0.1, eps=1e-12, weight_decay=0.5), 0.2),
        (SGD(learning_rate=0.1), 0.3),
        # Nesterov's first step: gradient + momentum × gradient.
        (SGD(learning_rate=0.1, momentum=0.5, nesterov=True), 0.45),
    ],
)
def test_the_first_update_is_what_the_optimizer_is_known_for(
    x64: None, optimizer: Any, size: float
):
    experiment = build(Config(optimizer=optimizer))
    made = experiment.optimizer(train.as_hparams(experiment.hparams))
    weight, gradient = np.array([2.0]), np.array([3.0])
    update: Any
    update, _ = made.update(gradient, made.init(weight), weight)
    assert float(update[0]) == pytest.approx(-size, rel=1e-9)


def test_the_main_job_has_the_parameters_of_its_net():
    experiment = build(Config())
    model = experiment.model(experiment.hparams)
    params, _ = jax.eval_shape(
        lambda: model.init(jax.random.key(0), experiment.data.train.spec["x"])
    )
    # 3·3·1·32 + 32, 3·3·32·64 + 64, 4·4·64·128 + 128, 128·10 + 10
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 320 + 18_496 + 131_200 + 1_290


def test_text_makes_a_language_model_of_its_vocabulary_and_context():
    experiment = build(Config(model=GPTNano(), data=Text(context=32)))
    assert (experiment.task, experiment.judged_by) == ("language model", "loss")
    model, x_spec = experiment.model({}), experiment.data.train.spec["x"]
    params, _ = jax.eval_shape(lambda: model.init(jax.random.key(0), x_spec))
    assert params["token"]["embedding"].shape == (len(experiment.data.vocabulary), 128)
    assert params["position"]["embedding"].shape == (32, 128)


def test_the_base_of_rotary_positions_arrives():
    # It is a constant of the program, which its text does not show.
    nets = [GPTNano(layers=1, heads=1, width=4, position="rotary", rotary_base=base)
            for base in (1e4, 2.0)]  # fmt: skip
    made = [build(Config(model=net, data=Text(context=8))).model({}) for net in nets]
    tokens = jnp.arange(8, dtype=jnp.int32)[None]
    params, state = made[0].init(jax.random.key(0), tokens)
    one, other = (model.apply(params, state, tokens)[0] for model in made)
    assert not np.array_equal(one, other)


def test_targets_without_classes_make_a_regression():
    experiment = build(Config(model=MLP(hidden=(4,)), data=Gaussian(count=64, inputs=5, outputs=3)))
    assert not experiment.is_classification
    model = experiment.model({})
    params, _ = model.init(jax.random.key(0), experiment.data.train.spec["x"])
    assert params["head"]["kernel"].shape == (4, 3)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Config(data=Gaussian()), "model=cnn needs images .* has shape .1000,.: give model=mlp"),
        (Config(model=MLP(), data=Gaussian(), train=Train(label_smoothing=0.1)),
         "train.label_smoothing needs classes, and data=gaussian has none"),
        (Config(model=MLP(), data=Gaussian(), train=Train(best="accuracy")),
         "train.best is 'accuracy', but data=gaussian has no classes"),
        (Config(model=MLP(), data=Gaussian(), train=Train(patience=3)),
         "train.patience needs a validation part, and data=gaussian has none"),
        (Config(model=GPTNano()), "model=gpt_nano needs text, and data=digits has none"),
        (Config(data=Text()), "model=cnn takes numbers, and data=text is text: give model=gpt_na"),
        (Config(model=ResNet18(), data=Gaussian()), "model=resnet18 needs images"),
        (Config(model=GPTNano(), data=Text(validation=0), train=Train(patience=3)),
         "train.patience needs a validation part, and data=text has none"),
        (Config(seed=-1), "seed is -1: give a whole number, 0 or more"),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_with_the_data_are_refused(config: Config, message: str):
    with pytest.raises(ConfigError, match=message):
        build(config)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (
            np.zeros((20, 3), np.int32),
            np.arange(20) % 2,
            "x in data=npz is int32: save it as float32",
        ),
        (np.zeros((20, 3)), np.zeros(20), "y in data=npz is float32 of shape"),
        (np.zeros((20, 3)), np.zeros((20, 2), np.int32), "y in data=npz is int32 of shape"),
        (np.zeros((20, 3)), np.full(20, -1), "record 0 has class -1"),
    ],
)
def test_arrays_that_cannot_be_trained_on_are_refused(
    tmp_path: Path, x: np.ndarray, y: np.ndarray, message: str
):
    np.savez(tmp_path / "a.npz", x=x, y=y)
    config = Config(model=MLP(), data=Npz(str(tmp_path / "a.npz")), train=Train(batch_size=4))
    with pytest.raises(UserError, match=message):
        build(config)


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(DataError, match="batch_size is 2000, but there are 1258 training records"):
        build(Config(train=Train(batch_size=2000)))


def test_a_factor_of_the_initial_weights_leaves_biases_alone_and_is_traced():
    job = Config(model=MLP(hidden=(8,)), train=Train(init_scale=3.0))
    plain, scaled = build(Config(model=MLP(hidden=(8,)))), build(job)
    assert scaled.hparams["train.init_scale"] == 3.0
    key, spec = jax.random.key(0), plain.data.train.spec["x"]
    before, _ = plain.model({}).init(key, spec)
    after, _ = scaled.model(train.as_hparams(scaled.hparams)).init(key, spec)
    assert jnp.allclose(after["hidden_0"]["kernel"], 3 * before["hidden_0"]["kernel"], rtol=1e-6)
    assert (after["hidden_0"]["bias"] == before["hidden_0"]["bias"]).all()
