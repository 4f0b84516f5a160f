"""Trains a network for each of 16 mixing policies at once, to compare their alphas on your data.

    python examples/search.py

It takes half a minute on two CPU cores, about 9 times as long as one policy alone. It prints the
test accuracies and draws them over alpha in runs/search/search.png. A mixer is a pytree of numbers,
so `jax.vmap` over a stack of mixers turns the training of one network into one program that trains
many. Replace the digits and the network by your own.

Test accuracy after 30 epochs with 512 digits, one seed (jax 0.10.2):

| alpha  | no mixing | 0.1   | 0.2   | 0.4   | 0.8   | 1.6   |
|--------|-----------|-------|-------|-------|-------|-------|
| CutMix | 0.913     | 0.894 | 0.895 | 0.897 | 0.896 | 0.887 |
| MixUp  | 0.913     | 0.914 | 0.915 | 0.913 | 0.905 | 0.900 |
| either | 0.913     | 0.913 | 0.909 | 0.903 | 0.893 | 0.887 |
"""

import argparse
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from tqdm import tqdm

from jaxmix import CutMix, MixUp, RandomApply, RandomChoice

ALPHAS = (0.1, 0.2, 0.4, 0.8, 1.6)


def policy(cut, mix, share_of_cut, prob=1.0):
    """A choice of CutMix or MixUp; all policies have this structure, so they can be stacked."""
    choice = RandomChoice((CutMix(cut), MixUp(mix)), probs=(share_of_cut, 1.0 - share_of_cut))
    return RandomApply(choice, prob)


def policies():
    """The names of the 16 policies, and the policies."""
    named = {"no mixing": policy(1.0, 1.0, 0.5, prob=0.0)}
    named |= {f"CutMix({alpha})": policy(alpha, 1.0, 1.0) for alpha in ALPHAS}
    named |= {f"MixUp({alpha})": policy(1.0, alpha, 0.0) for alpha in ALPHAS}
    named |= {f"either({alpha})": policy(alpha, alpha, 0.5) for alpha in ALPHAS}
    return list(named), list(named.values())


def network(seed):
    """The graph and the parameters of a network of three dense layers, for `nnx.merge`."""
    rngs = nnx.Rngs(seed)
    sizes = (64, 256), (256, 256), (256, 10)
    first, second, last = (nnx.Linear(*size, rngs=rngs) for size in sizes)
    flat = nnx.Sequential(lambda x: x.reshape(len(x), -1), first, nnx.relu, second, nnx.relu, last)
    return nnx.split(flat)


def trainer(graph, optimizer, images, labels, batch_size):
    """Makes a function that trains for one epoch, given a mixer, parameters, state and key."""
    steps = len(images) // batch_size

    def step(mixer, carry, inputs):
        parameters, state = carry
        key, rows = inputs
        mixed, soft = mixer(key, images[rows], labels[rows], num_classes=10)

        def loss_fn(parameters):
            return optax.softmax_cross_entropy(nnx.merge(graph, parameters)(mixed), soft).mean()

        updates, state = optimizer.update(jax.grad(loss_fn)(parameters), state, parameters)
        return (optax.apply_updates(parameters, updates), state), None

    def train(mixer, parameters, state, key):
        shuffle, draw = jax.random.split(key)
        rows = jax.random.permutation(shuffle, len(images))[: steps * batch_size]
        inputs = jax.random.split(draw, steps), rows.reshape(steps, batch_size)
        carry = parameters, state
        for i in range(steps):
            carry, _ = step(mixer, carry, jax.tree.map(lambda x, i=i: x[i], inputs))
        return carry

    return train


def run(train, graph, parameters, state, mixers, epochs, seed):
    """Trains with all mixers; returns the parameters and the median seconds of an epoch."""
    many = jax.jit(jax.vmap(train, in_axes=(0, 0, 0, None)), donate_argnums=(1, 2))
    stacked = jax.tree.map(lambda *leaves: jnp.stack([jnp.float32(x) for x in leaves]), *mixers)
    copies = jax.tree.map(lambda x: jnp.stack([x] * len(mixers)), (parameters, state))
    seconds = []
    for epoch in tqdm(range(epochs), unit="epoch", desc=f"{len(mixers)} at once"):
        start = time.perf_counter()
        key = jax.random.fold_in(jax.random.key(seed), epoch)
        copies = jax.block_until_ready(many(stacked, *copies, key))
        seconds.append(time.perf_counter() - start)
    return copies[0], float(np.median(seconds[1:]))


def accuracies(graph, many, images, labels):
    """The accuracy of each network, float[policies]."""

    @jax.jit
    @jax.vmap
    def correct(parameters):
        return (nnx.merge(graph, parameters)(images).argmax(1) == labels).mean()

    return np.asarray(correct(many))


def main():
    """Trains with all policies, prints the accuracies and draws the picture."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    add = parser.add_argument
    add("--epochs", type=int, default=30, help="training epochs (default: 30)")
    add("--train-images", type=int, default=512, help="the rest is the test set (default: 512)")
    add("--seed", type=int, default=0, help="random seed (default: 0)")
    add("--out", type=Path, default="runs/search", help="output folder (default: runs/search)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    images, labels = map(jnp.asarray, load_digits(return_X_y=True))
    images, few = (images / 16).astype(jnp.float32).reshape(-1, 8, 8, 1), args.train_images
    names, mixers = policies()
    graph, parameters = network(args.seed)
    optimizer = optax.adam(2e-3)
    state = optimizer.init(parameters)
    train = trainer(graph, optimizer, images[:few], labels[:few], 64)
    how = train, graph, parameters, state
    many, together = run(*how, mixers, args.epochs, args.seed)
    _, alone = run(*how, mixers[:1], args.epochs, args.seed)
    found = accuracies(graph, many, images[few:], labels[few:])
    for name, accuracy in zip(names, found, strict=True):
        print(f"{name:12} test accuracy {accuracy:.3f}")
    print(f"16 policies at once take {together / alone:.1f} times as long as one")

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    for start, kind, look in ((1, "CutMix", "o-"), (6, "MixUp", "s-"), (11, "either", "^-")):
        axes.semilogx(ALPHAS, found[start : start + 5], look, label=kind)
    axes.axhline(found[0], color="gray", linestyle="--", label="no mixing")
    axes.set(xlabel="alpha", ylabel="test accuracy", xticks=ALPHAS, xticklabels=ALPHAS)
    axes.legend()
    figure.savefig(args.out / "search.png", dpi=120)


if __name__ == "__main__":
    main()
