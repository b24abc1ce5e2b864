from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
import pytest

from functorch_kit import nn
from functorch_kit.errors import UserError
from functorch_kit.program import ProgramRefused
from functorch_kit.train import choose_form, classification, make_init, make_train_step


def _form(model: nn.Model, shape: tuple[int, ...], wanted: str = "auto"):
    batch = {
        "x": jax.ShapeDtypeStruct(shape, jnp.float32),
        "y": jax.ShapeDtypeStruct(shape[:1], jnp.int32),
    }
    sgd = optax.sgd(0.1)
    state = jax.eval_shape(make_init(model, sgd, batch["x"]), {}, jax.random.key(0))
    return choose_form(make_train_step(classification(model), sgd), {}, state, batch, wanted)


def _net(method: str) -> nn.Model:
    return nn.serial(
        conv=nn.residual(nn.conv(1, (3, 3), method=method)), flat=nn.flatten(), head=nn.dense(2)
    )


def test_a_step_without_convolutions_runs_in_chunks():
    form = _form(nn.serial(nn.dense(3), nn.relu, nn.dropout(0.1), nn.dense(2)), (4, 5))
    assert form.name == "chunk"
    assert "full speed" in form.reason


def test_a_convolution_by_the_library_runs_single_and_says_why():
    form = _form(_net("library"), (2, 4, 4, 1))
    assert form.name == "single"
    assert "conv_general_dilated is slow inside a loop" in form.reason


def test_a_convolution_by_patches_runs_in_chunks():
    assert _form(_net("patches"), (2, 4, 4, 1)).name == "chunk"


@pytest.mark.parametrize(
    "wrap",
    [jax.jit, jax.checkpoint, lambda f: lambda x: jax.lax.cond(x.sum() > 0, f, f, x)],
    ids=["jit", "checkpoint", "cond"],
)
def test_a_convolution_is_found_inside_other_operations(wrap):
    conv = nn.conv(1, (3,), method="library", use_bias=False)
    kernel = {"kernel": jnp.ones((3, 1, 1))}
    hidden = wrap(lambda x: conv.apply(kernel, (), x)[0])
    model = nn.serial(nn.lambda_(hidden), nn.flatten(), nn.dense(2))
    assert _form(model, (2, 4, 1)).name == "single"


@pytest.mark.parametrize("wanted", ["chunk", "single"])
def test_a_form_that_is_asked_for_is_taken(wanted):
    assert _form(_net("library"), (2, 4, 4, 1), wanted) == (wanted, "asked for")


def test_another_word_is_refused():
    with pytest.raises(UserError, match="form 'loop' is not one of auto, chunk, single"):
        _form(_net("library"), (2, 4, 4, 1), "loop")


def test_a_step_that_branches_in_python_on_a_hyperparameter_is_refused_and_named():
    def step(hparams, state, batch):
        return state, batch["x"] * (2 if hparams["deep"] > 0 else 1)

    hparams = {"deep": jnp.float32(1), "rate": jnp.float32(1)}
    with pytest.raises(ProgramRefused, match=r"train_step: hparams/deep is a traced float32\[\]"):
        choose_form(step, hparams, (), {"x": jnp.ones(2)})
