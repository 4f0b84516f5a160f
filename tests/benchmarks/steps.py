"""Measures what mixing adds to the time of a training step on uint8 images.

The network is a ViT-S/16 on an accelerator, and a small ResNet on a CPU.
"""

import random
import statistics
import time

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from .cases import METHODS
from .jax_peers import programs


class ResNet(nn.Module):
    """Three stages of one residual block each, for 32 x 32 pixels."""

    rows, side, classes = 128, 32, 10

    @nn.compact
    def __call__(self, x):
        """Logits [B, classes]."""
        x = nn.Conv(16, (3, 3))(x)
        for width, stride in ((16, 1), (32, 2), (64, 2)):
            y = nn.Conv(width, (3, 3), strides=stride)(nn.relu(nn.GroupNorm(8)(x)))
            y = nn.Conv(width, (3, 3))(nn.relu(nn.GroupNorm(8)(y)))
            x = y + nn.Conv(width, (1, 1), strides=stride)(x)
        return nn.Dense(self.classes)(nn.relu(x).mean((1, 2)))


class ViT(nn.Module):
    """ViT-S/16 in bfloat16 (Dosovitskiy et al. 2020, Touvron et al. 2020), with mean pooling."""

    rows, side, classes = 256, 224, 1000
    width, depth, heads = 384, 12, 6

    @nn.compact
    def __call__(self, x):
        """Logits [B, classes]."""
        x = nn.Conv(self.width, (16, 16), strides=16, dtype=jnp.bfloat16)(x)
        x = x.reshape(len(x), -1, self.width)
        x += self.param("position", nn.initializers.normal(0.02), x.shape[1:]).astype(x.dtype)
        for _ in range(self.depth):
            y = nn.LayerNorm(dtype=jnp.bfloat16)(x)
            x += nn.MultiHeadDotProductAttention(self.heads, dtype=jnp.bfloat16)(y)
            y = nn.Dense(4 * self.width, dtype=jnp.bfloat16)(nn.LayerNorm(dtype=jnp.bfloat16)(x))
            x += nn.Dense(self.width, dtype=jnp.bfloat16)(nn.gelu(y))
        return nn.Dense(self.classes)(nn.LayerNorm()(x).mean(1))


def make_step(network, optimizer, mix):
    """Returns a jitted step that mixes inside."""

    @jax.jit
    def step(params, state, key, images, labels):
        if mix is None:
            labels = jax.nn.one_hot(labels, network.classes)
        else:
            images, labels = mix(key, images, labels)
        images = images.astype(jnp.float32) / 127.5 - 1

        def loss_fn(params):
            return optax.softmax_cross_entropy(network.apply(params, images), labels).mean()

        loss, slope = jax.value_and_grad(loss_fn)(params)
        updates, state = optimizer.update(slope, state, params)
        return optax.apply_updates(params, updates), state, loss

    return step


def report(rounds):
    """Formats a Markdown table; the two plain steps show how much the timings vary."""
    network = ResNet() if jax.default_backend() == "cpu" else ViT()
    keys, shape = jax.random.split(jax.random.key(0), 4), (network.rows, network.side, network.side)
    images = jax.random.randint(keys[0], (*shape, 3), 0, 256, jnp.uint8)
    labels = jax.random.randint(keys[1], shape[:1], 0, network.classes)
    params = network.init(keys[2], images.astype(jnp.float32))
    optimizer = optax.sgd(0.1, 0.9)
    state = optimizer.init(params)
    mixing = {"plain": None, "plain again": None}
    for method in METHODS:
        ours, theirs = programs(method, "example", "NHWC", network.classes)
        mixing |= {f"{method}, jaxmix": ours, f"{method}, naive JAX": theirs}
    steps = {name: make_step(network, optimizer, mix) for name, mix in mixing.items()}
    times, order = {name: [] for name in steps}, random.Random(0)
    for number in range(rounds + 2):  # The first two rounds compile and warm up.
        for name in order.sample(list(steps), len(steps)):
            start = time.perf_counter()
            jax.block_until_ready(steps[name](params, state, keys[3], images, labels))
            if number > 1:
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    head = f"training step of {type(network).__name__} on {network.rows} images"
    lines = [
        f"| {head} of {network.side} x {network.side} | ms | more than plain |",
        "|---|---|---|",
    ]
    for name, median in medians.items():
        more = 100 * (median / medians["plain"] - 1)
        lines.append(f"| {name} | {1e3 * median:.2f} | {more:+.1f} % |")
    return "\n".join(lines)
