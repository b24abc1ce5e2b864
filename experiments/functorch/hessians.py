"""Hessians: of a layer in its input, and of a training loss in its parameters.

First the layer of functorch's tutorial, ``tanh(x @ W + b)`` of 16 → 16: the Hessian of its sum in
the input. Then what the Hessian of a loss is for: a net 64-32-10 on scikit-learn's digits, by
matrix-free operators over the whole training set. Printed: the layer's Hessian against central
differences; the net's largest eigenvalues of the Hessian and of the Gauss-Newton matrix before and
after training, the Hessian's most negative one, its trace with a standard error, and by how many
nats a Laplace approximation of the last layer changes the test loss.

Command: ``python experiments/functorch/hessians.py``. Under a minute on two cores. Expected: at
the end Hessian and Gauss-Newton matrix agree at the top, and little is negative.
"""

import argparse

import jax
import jax.numpy as jnp
import optax
import task

from functorch_kit import data, losses, nn, transforms
from functorch_kit.transforms import curvature

MODEL = nn.serial(flat=nn.flatten(), hidden=nn.dense(32), act=nn.tanh, head=nn.dense(10))
DECAY = 1e-3


def outputs(params, batch):
    return MODEL.apply(params, (), batch["x"])[0]


def in_outputs(z, batch):
    return losses.softmax_cross_entropy(z, batch["y"])


def all_losses(params, batch):
    return in_outputs(outputs(params, batch), batch)


def of_a_layer() -> float:
    """The largest difference between the Hessian of a layer and central differences."""
    weight, bias, x = (
        jax.random.normal(jax.random.key(seed), shape)
        for seed, shape in enumerate([(16, 16), (16,), (16,)])
    )

    def slope(x):
        return jax.grad(lambda x: jnp.sum(jnp.tanh(x @ weight + bias)))(x)

    found = jax.jit(jax.jacfwd(slope))(x)
    step = 1e-2
    differences = [
        (slope(x + step * e) - slope(x - step * e)) / (2 * step) for e in jnp.eye(16, dtype=x.dtype)
    ]
    return float(jnp.max(jnp.abs(found - jnp.stack(differences))))


def trained(params, batch, steps: int):
    """The parameters after steps of Adam on the whole batch, with weight decay in the loss."""

    def loss(params, batch):
        decay = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
        return jnp.mean(all_losses(params, batch)) + DECAY / 2 * decay

    run = jax.jit(transforms.adapt(loss, optax.adam(1e-2), steps))
    return run(params, batch).params


def run(options: argparse.Namespace) -> task.Figures:
    yield "layer_difference", of_a_layer()
    steps, products = (3, 8) if options.quick else (300, 100)
    digits = data.digits()
    parts = {"train": digits.train.arrays, "test": digits.test.arrays}
    count = 64 if options.quick else None
    train, test = (
        {"x": jnp.asarray(part["x"][:count]), "y": jnp.asarray(part["y"][:count])}
        for part in parts.values()
    )
    begun, _ = MODEL.init(jax.random.key(0), train["x"])
    params = trained(begun, train, steps)
    key = jax.random.key(1)
    for when, point in (("before", begun), ("after", params)):
        hessian = curvature.hessian(all_losses, point, train)
        gauss_newton = curvature.gauss_newton(outputs, in_outputs, point, train)
        for name, matrix in (("hessian", hessian), ("gauss_newton", gauss_newton)):
            top = curvature.eigenpairs(matrix, 3, key=key, products=products)
            yield f"{when}_{name}_top", [round(float(value), 3) for value in top.values]
        bottom = curvature.eigenpairs(hessian, 1, key=key, end="smallest", products=products)
        yield f"{when}_hessian_bottom", bottom.values[0]
        trace = curvature.trace(hessian, key=key, products=products)
        yield f"{when}_hessian_trace", f"{float(trace.value):.3g} ± {float(trace.error):.2g}"
    yield from of_a_posterior(params, train, test)


def of_a_posterior(params, train, test) -> task.Figures:
    """The last layer's Laplace approximation: its effect on the loss of data that are new."""
    prior = DECAY * len(train["y"])
    last = curvature.laplace(
        *(outputs, in_outputs, params, train),
        prior_precision=prior,
        structure="full",
        parts=["head"],
    )
    found = last.predict(test)
    # The probit approximation (MacKay, 1992): logits shrink where they are uncertain.
    scaled = found.mean / jnp.sqrt(1 + jnp.pi / 8 * found.variance)
    yield "test_loss", jnp.mean(in_outputs(found.mean, test))
    yield "test_loss_laplace", jnp.mean(in_outputs(scaled, test))


if __name__ == "__main__":
    task.main(run, __doc__)
