"""What mixing adds to the time of a training step: a small ResNet, with and without it."""

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from .jax_peers import mixer

ROWS, CLASSES = 128, 10


class ResNet(nn.Module):
    """Three stages of one residual block each, for 32 x 32 pixels."""

    @nn.compact
    def __call__(self, x):
        """Logits [B, CLASSES]."""
        x = nn.Conv(16, (3, 3))(x)
        for width, stride in ((16, 1), (32, 2), (64, 2)):
            y = nn.Conv(width, (3, 3), strides=stride)(nn.relu(nn.GroupNorm(8)(x)))
            y = nn.Conv(width, (3, 3))(nn.relu(nn.GroupNorm(8)(y)))
            x = y + nn.Conv(width, (1, 1), strides=stride)(x)
        return nn.Dense(CLASSES)(nn.relu(x).mean((1, 2)))


def make_step(network, optimizer, mix):
    """A jitted step, with the mixing inside."""

    @jax.jit
    def step(params, state, key, images, labels):
        if mix is None:
            labels = jax.nn.one_hot(labels, CLASSES)
        else:
            images, labels = mix(key, images, labels, num_classes=CLASSES)

        def loss_fn(params):
            return optax.softmax_cross_entropy(network.apply(params, images), labels).mean()

        loss, slope = jax.value_and_grad(loss_fn)(params)
        updates, state = optimizer.update(slope, state, params)
        return optax.apply_updates(params, updates), state, loss

    return step


def report(rounds):
    """A table in Markdown; the plain step is there twice, which says how far to trust the rest."""
    generator = np.random.default_rng(0)
    images = jnp.asarray(generator.random((ROWS, 32, 32, 3), np.float32))
    labels = jnp.asarray(generator.integers(0, CLASSES, ROWS))
    network, optimizer, key = ResNet(), optax.sgd(0.1, 0.9), jax.random.key(0)
    params = network.init(key, images)
    state = optimizer.init(params)
    mixers = {"plain": None, "plain again": None}
    mixers |= {method: mixer(method, "example") for method in ("cutmix", "mixup", "both")}
    steps = {name: make_step(network, optimizer, mix) for name, mix in mixers.items()}
    times = {name: [] for name in steps}
    for number in range(rounds + 2):  # The first two compile and warm up.
        for name, step in steps.items():
            start = time.perf_counter()
            jax.block_until_ready(step(params, state, key, images, labels))
            if number > 1:
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    lines = [
        f"| training step of {ROWS} images of 32 x 32 | ms | more than plain |",
        "|---|---|---|",
    ]
    for name, median in medians.items():
        more = 100 * (median / medians["plain"] - 1)
        lines.append(f"| {name} | {1e3 * median:.1f} | {more:+.1f} % |")
    return "\n".join(lines)
