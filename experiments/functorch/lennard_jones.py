"""A potential learned from energies and forces (functorch's Lennard-Jones example).

Pairs of atoms at distances of 0.5 to 1 (sigma 0.5, epsilon 4), in 1000 random directions. A net
1-16-16-16-16-1 of tanh gives the energy from the distance; the force is minus the energy's gradient
in the positions, and the loss is of both, so training goes through a gradient inside a gradient.
Beside it the same net trained on energies alone. Printed: root mean square errors of both on
distances that were not in the data, relative to their own root mean squares.

Command: ``python experiments/functorch/lennard_jones.py``. About a minute on two cores. Expected:
with forces in the loss the force's error is some times smaller than without.
"""

import argparse

import jax
import jax.numpy as jnp
import optax
import task

from functorch_kit import nn, transforms

SIGMA, EPSILON, PAIRS = 0.5, 4.0, 1000
FORCE_WEIGHT = 0.01 / 3
MODEL = nn.serial(
    **{
        name: layer
        for index in range(4)
        for name, layer in ((f"hidden_{index}", nn.dense(16)), (f"tanh_{index}", nn.tanh))
    },
    head=nn.dense(1),
)


def potential(offset):
    """Lennard-Jones' energy of a pair, from the vector between them (3,)."""
    ratio = SIGMA / jnp.sqrt(jnp.sum(offset**2))
    return EPSILON * (ratio**12 - ratio**6)


def learned(params, offset):
    """The net's energy of a pair (3,)."""
    distance = jnp.sqrt(jnp.sum(offset**2)).reshape(1, 1)
    return MODEL.apply(params, (), distance)[0][0, 0]


def force(energy, offset):
    return -jax.grad(energy)(offset)


def pairs(key, count: int):
    """Vectors between pairs, their energies and their forces."""
    ways = jax.random.normal(key, (count, 3))
    ways = ways / jnp.linalg.norm(ways, axis=1, keepdims=True)
    offset = ways * jnp.linspace(SIGMA, 2 * SIGMA, count)[:, None]
    return {
        "offset": offset,
        "energy": jax.vmap(potential)(offset),
        "force": jax.vmap(lambda offset: force(potential, offset))(offset),
    }


def predicted(params, offset):
    energy = jax.vmap(lambda offset: learned(params, offset))(offset)
    forces = jax.vmap(lambda offset: force(lambda o: learned(params, o), offset))(offset)
    return energy, forces


def loss_with(force_weight: float):
    def loss(params, batch):
        energy, forces = predicted(params, batch["offset"])
        by_energy = jnp.mean((energy - batch["energy"]) ** 2)
        return by_energy + force_weight * jnp.mean((forces - batch["force"]) ** 2)

    return loss


def run(options: argparse.Namespace) -> task.Figures:
    steps, count = (3, 16) if options.quick else (options.steps, PAIRS)
    batch = pairs(jax.random.key(0), count)
    # Between the distances of the data, in other directions.
    new = pairs(jax.random.key(1), count - 1)
    begun, _ = MODEL.init(jax.random.key(2), jnp.ones((1, 1)))
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, steps))
    for name, weight in (("energy_and_force", FORCE_WEIGHT), ("energy_alone", 0.0)):
        train = jax.jit(transforms.adapt(loss_with(weight), optimizer, steps))
        params = train(begun, batch).params
        energy, forces = predicted(params, new["offset"])
        yield f"{name}_energy_error", relative(energy, new["energy"])
        yield f"{name}_force_error", relative(forces, new["force"])


def relative(found, expected):
    return jnp.sqrt(jnp.mean((found - expected) ** 2) / jnp.mean(expected**2))


if __name__ == "__main__":
    task.main(
        run,
        __doc__,
        lambda parser: parser.add_argument("--steps", type=int, default=5000, help="of Adam"),
    )
