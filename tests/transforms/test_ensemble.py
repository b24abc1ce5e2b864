"""Members of an ensemble are what each would have been alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from functorch_kit import losses, nn, transforms
from functorch_kit.transforms import TransformError
from functorch_kit.types import Model, Outcome

SIZE = 3


def _model() -> Model:
    return nn.serial(
        hidden=nn.dense(4, use_bias=False),
        norm=nn.batch_norm(),
        drop=nn.dropout(0.3),
        head=nn.dense(2),
    )


def _objective(model: Model):
    def objective(params, model_state, batch, *, key, train):
        logits, state = model.apply(params, model_state, batch["x"], key=key, train=train)
        loss = losses.softmax_cross_entropy(logits, batch["y"])
        return Outcome(jnp.sum(loss), jnp.asarray(len(loss), loss.dtype), state, {})

    return objective


def _batch(*lead: int) -> dict[str, jax.Array]:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(*lead, 6, 3)), generator.integers(0, 2, (*lead, 6))
    return {"x": jnp.asarray(x), "y": jnp.asarray(y)}


@pytest.mark.parametrize("own_batches", [False, True])
def test_each_member_trains_as_it_would_alone(
    own_batches: bool, x64: None, standard_promotion: None
):
    model = _model()
    members = transforms.ensemble(model, SIZE)

    def optimizer(hparams):
        return optax.adamw(hparams["learning_rate"], weight_decay=hparams["decay"])

    rates = jnp.array([1e-1, 1e-2, 1e-3])
    hparams = {"learning_rate": rates, "decay": jnp.array(0.1)}
    batch = _batch(SIZE) if own_batches else _batch()
    spec = jax.ShapeDtypeStruct((6, 3), jnp.float64)
    state = members.start(jax.random.key(0), spec, optimizer, hparams)
    step = jax.jit(members.train_step(_objective(model), optimizer, own_batches=own_batches))
    begun = state
    state, _ = step(hparams, state, batch)
    state, found = step(hparams, state, batch)
    assert found.shape == (SIZE,)
    assert int(state.step) == 2

    for lane in range(SIZE):
        own = jax.tree.map(lambda leaf, lane=lane: leaf[lane], batch) if own_batches else batch
        params, model_state = (
            jax.tree.map(lambda leaf, lane=lane: leaf[lane], tree)
            for tree in (begun.params, begun.model_state)
        )
        adamw = optimizer({"learning_rate": rates[lane], "decay": 0.1})
        opt_state = adamw.init(params)

        def mean(params, model_state, own, key):
            outcome = _objective(model)(params, model_state, own, key=key, train=True)
            return outcome.loss_sum / outcome.weight, outcome.model_state

        for number in range(2):
            key = jax.random.fold_in(begun.keys[lane], number)
            slope, model_state = jax.grad(mean, has_aux=True)(params, model_state, own, key)
            updates, opt_state = adamw.update(slope, opt_state, params)
            params = optax.apply_updates(params, updates)
        alone = (params, model_state)
        for leaf, wanted in zip(
            jax.tree.leaves((state.params, state.model_state)), jax.tree.leaves(alone), strict=True
        ):
            np.testing.assert_allclose(leaf[lane], wanted, rtol=0, atol=1e-10)


def test_members_begin_with_values_of_their_own_that_a_solo_run_would_have():
    model = nn.dense(2)
    params, _ = transforms.ensemble(model, SIZE).init(jax.random.key(5), jnp.ones((1, 3)))
    kernels = np.asarray(params["kernel"])
    assert len({kernel.tobytes() for kernel in kernels}) == SIZE
    keys = jax.random.split(jax.random.key(5), SIZE)
    solo, _ = model.init(keys[1], jnp.ones((1, 3)))
    assert kernels[1].tobytes() == np.asarray(solo["kernel"]).tobytes()


def test_dropout_differs_between_members():
    members = transforms.ensemble(nn.dropout(0.5), SIZE)
    params, state = members.init(jax.random.key(0), jnp.ones((1, 64)))
    y, _ = members.apply(params, state, jnp.ones((1, 64)), key=jax.random.key(1), train=True)
    assert len({row.tobytes() for row in np.asarray(y)}) == SIZE


def test_each_member_may_have_an_input_of_its_own():
    members = transforms.ensemble(nn.lambda_(lambda x: 2 * x), SIZE)
    x = jnp.arange(6.0).reshape(SIZE, 2)
    y, _ = members.apply({}, (), x, own_x=True)
    assert y.tolist() == (2 * x).tolist()


def test_disagreement_is_the_logarithm_of_two_where_two_are_sure_of_different_things():
    members = transforms.ensemble(nn.lambda_(lambda x: x), 2)

    def of(*logits):
        predicted = transforms.Ensemble(
            nn.Model(
                lambda key, x_spec: ({}, ()),
                lambda params, state, x, *, key=None, train=False: (params[None], state),
            ),
            2,
        ).predict(jnp.array(logits), (), jnp.zeros(()))
        return predicted

    assert members.size == 2
    apart = of([50.0, -50.0], [-50.0, 50.0])
    assert apart.probabilities.tolist() == [[0.5, 0.5]]
    assert float(apart.disagreement[0]) == pytest.approx(np.log(2), rel=1e-6)
    # As unsure as that together, but of one mind.
    unsure = of([0.0, 0.0], [0.0, 0.0])
    assert unsure.probabilities.tolist() == [[0.5, 0.5]]
    assert unsure.disagreement.tolist() == [0.0]
    assert apart.members.shape == (2, 1, 2)


def test_a_hyperparameter_for_another_number_of_members_is_refused():
    members = transforms.ensemble(nn.dense(1), SIZE)
    hparams = {"learning_rate": jnp.ones(2)}
    with pytest.raises(TransformError, match=r"learning_rate has shape \(2,\).*3 members"):
        members.start(jax.random.key(0), jnp.ones((1, 1)), optax.sgd(0.1), hparams)


def test_no_members_are_refused():
    with pytest.raises(TransformError, match="0 members"):
        transforms.ensemble(nn.dense(1), 0)
