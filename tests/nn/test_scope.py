from __future__ import annotations

import threading

import jax
import jax.numpy as jnp
import pytest

from functorch_kit import nn

MODEL = nn.serial(block=nn.residual(nn.serial(nn.dense(3), nn.relu)))
X = jnp.ones((2, 3))


def _names(jaxpr) -> list[str]:
    return [e.params["name"] for e in jaxpr.eqns if e.primitive.name == "name"]


def test_every_output_bears_the_path_of_its_part():
    params, state = MODEL.init(jax.random.key(0), X)
    jaxpr = jax.make_jaxpr(lambda p, x: MODEL.apply(p, state, x)[0])(params, X).jaxpr
    assert _names(jaxpr) == [
        "block/body/0",
        "block/body/1",
        "block/body",
        "block/shortcut",
        "block",
    ]
    products = [e for e in jaxpr.eqns if e.primitive.name == "dot_general"]
    assert str(products[0].source_info.name_stack) == "block/body/0"


def test_names_serve_rematerialisation():
    params, state = MODEL.init(jax.random.key(0), X)
    policy = jax.checkpoint_policies.save_only_these_names("block/body/0")

    def total(params):
        return MODEL.apply(params, state, X)[0].sum()

    plain = jax.grad(total)(params)
    remat = jax.grad(jax.checkpoint(total, policy=policy))(params)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), plain, remat))


def test_eager_execution_is_not_tagged():
    with nn.scope("part"):
        assert nn.tag(X) is X


def test_an_error_leaves_the_path_as_it_was():
    with pytest.raises(ZeroDivisionError), nn.scope("outer"), nn.scope("inner"):
        raise ZeroDivisionError
    assert nn.current_path() == ""


def test_threads_have_paths_of_their_own():
    seen = []
    with nn.scope("here"):
        thread = threading.Thread(target=lambda: seen.append(nn.current_path()))
        thread.start()
        thread.join()
    assert seen == [""]
