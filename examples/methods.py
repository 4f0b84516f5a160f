"""Published mixing methods in a few lines each, and a gallery of them on photographs.

    python examples/methods.py

Each method is a region, a pairing, a share of the label, or several plans: copy what you need. The
gallery of 11 of them is in runs/methods/methods.png. It takes up to a minute on two CPU cores.
"""

# ruff: noqa: D102, D205

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import skimage
from flax import nnx
from matplotlib.figure import Figure
from tqdm import tqdm

from jaxmix import Box, CutMix, Mask, Mixer, MixUp, Permutation, Plan, Roll, symmetric_beta

STATIC, ROWS = {"static": True}, {"rows": True}


def over(values, spatial):
    """Reshapes [rows] to [rows, 1, ...], which broadcasts over the spatial axes."""
    return values.reshape(-1, *[1] * len(spatial))


def inside(key, sides, spatial):
    """Boxes at random places inside the image; `sides` is float32[rows, n], in pixels."""
    sides = jnp.round(sides)
    room = jnp.array([spatial], jnp.float32) - sides
    start = jnp.floor(jax.random.uniform(key, sides.shape) * (room + 1)).astype(jnp.int32)
    return Box(start, start + sides.astype(jnp.int32))


# Regions: `draw` returns what is painted, and its opacity.


class FMix(Mixer):
    """Paints where low-frequency noise is largest; the painted share is Beta(alpha, alpha).
    Its regions have irregular shapes, in any rank. Harris et al. 2020, https://arxiv.org/abs/2002.12047.
    """

    alpha: float = 1.0
    decay: float = 3.0

    def draw(self, key, rows, spatial):
        noise_key, key = jax.random.split(key)
        noise = waves(noise_key, rows, spatial, self.decay)
        share, axes = symmetric_beta(key, self.alpha, (rows,)), tuple(range(1, noise.ndim))

        def halve(_, bounds):  # Finds the threshold by bisection, without a sort.
            middle = sum(bounds) / 2
            many = (noise > middle).mean(axes, keepdims=True) > over(share, spatial)
            return jnp.where(many, middle, bounds[0]), jnp.where(many, bounds[1], middle)

        bounds = noise.min(axes, keepdims=True), noise.max(axes, keepdims=True)
        return Mask(noise > jax.lax.fori_loop(0, 30, halve, bounds)[1]), None


def waves(key, rows, spatial, decay, most=8):
    """Noise of amplitude 1 / frequency^decay: the sum of its longest waves, without an FFT."""
    counts = [jnp.arange(-min(most, (n - 1) // 2), min(most, n // 2) + 1) for n in spatial]
    grids = jnp.meshgrid(*(k / n for k, n in zip(counts, spatial, strict=True)), indexing="ij")
    frequency = jnp.maximum(jnp.sqrt(sum(grid**2 for grid in grids)), 1 / max(spatial))
    noise = jax.lax.complex(*jax.random.normal(key, (2, rows, *frequency.shape)))
    noise *= (frequency**-decay)[None].astype(noise.dtype)
    for k, n in zip(counts, spatial, strict=True):  # Each contracts an axis, and appends one.
        angle = 2 * jnp.pi * (k[:, None] * jnp.arange(n)[None] / n)
        noise = jnp.tensordot(noise, jax.lax.complex(jnp.cos(angle), jnp.sin(angle)), (1, 0))
    return noise.real


class SmoothMix(Mixer):
    """Paints a bell at a random centre; sigma is uniform between two fractions of each side.
    The painted region has no sharp edge. Lee et al. 2020, CVPR Workshops.
    """

    sigmas: tuple = (0.25, 0.5)

    def draw(self, key, rows, spatial):
        sigma_key, key = jax.random.split(key)
        low, high = self.sigmas
        sigma = jax.random.uniform(sigma_key, (rows,), minval=low, maxval=high)
        square = jnp.zeros((rows, *spatial))
        for axis, n in enumerate(spatial):
            centre = jax.random.randint(jax.random.fold_in(key, axis), (rows,), 0, n)
            position = jax.lax.broadcasted_iota(jnp.int32, square.shape, axis + 1)
            square += ((position - over(centre, spatial)) / n) ** 2
        return Mask(jnp.exp(-square / (2 * over(sigma, spatial) ** 2))), None


class HalfBox(Mixer):
    """Paints a box of a fixed area and a log-uniform height.
    Use it with `plan.maps` for semi-supervised segmentation. French et al. 2019,
    https://arxiv.org/abs/1906.01916.
    """

    share: float = 0.5

    def draw(self, key, rows, spatial):
        side_key, key = jax.random.split(key)
        height = jnp.exp(jax.random.uniform(side_key, (rows,)) * jnp.log(self.share))
        sides = jnp.stack((height, self.share / height), 1) * jnp.array([spatial], jnp.float32)
        return inside(key, sides, spatial), None


# Content: a field holds the content of each row; `self.pairing.take` gives the partner's.


class SaliencyMix(Mixer):
    """A box around the partner's most salient pixel; `saliency` has the resolution of the images.
    Uddin et al. 2020, https://arxiv.org/abs/2006.01791.
    """

    alpha: float = 1.0
    saliency: Any = dataclasses.field(default=None, metadata=ROWS)

    def draw(self, key, rows, spatial):
        theirs = self.pairing.take(self.saliency).reshape(rows, -1)
        peak = jnp.stack(jnp.unravel_index(jnp.argmax(theirs, 1), spatial), 1)
        side = jnp.sqrt(symmetric_beta(key, self.alpha, (rows,)))[:, None]
        half = (side * jnp.array([spatial], jnp.float32)).astype(jnp.int32) // 2
        return Box(peak - half, peak + half), None  # Clipped by the plan.


class AttentiveCutMix(Mixer):
    """Paints the `count` cells of the partner that a network attends to most.
    Walawalkar et al. 2020, https://arxiv.org/abs/2003.13048.
    """

    attention: Any = dataclasses.field(default=None, metadata=ROWS)
    count: int = dataclasses.field(default=6, metadata=STATIC)

    def draw(self, key, rows, spatial):
        theirs = self.pairing.take(self.attention)
        _, best = jax.lax.top_k(theirs.reshape(rows, -1), self.count)
        painted = jax.nn.one_hot(best, theirs[0].size, dtype=bool).any(1).reshape(theirs.shape)
        for axis, n in enumerate(spatial, 1):
            painted = jnp.take(painted, jnp.arange(n) * painted.shape[axis] // n, axis)
        return Mask(painted), None


class ClassMix(Mixer):
    """Paints the pixels of half of the classes in the partner's map, chosen at random.
    Use it for semi-supervised segmentation. Olsson et al. 2020, https://arxiv.org/abs/2007.07936.
    """

    maps: Any = dataclasses.field(default=None, metadata=ROWS)
    classes: int = dataclasses.field(default=2, metadata=STATIC)

    def draw(self, key, rows, spatial):
        theirs = self.pairing.take(self.maps).reshape(rows, -1)
        each = jax.nn.one_hot(theirs, self.classes, dtype=bool)  # Void pixels have no class.
        here = each.any(1)
        score = jnp.where(here, jax.random.uniform(key, here.shape), 2.0)
        rank = (score[:, :, None] > score[:, None]).sum(2)
        taken = here & (rank < here.sum(1, keepdims=True) // 2)
        return Mask((each & taken[:, None]).any(2).reshape(rows, *spatial)), None


# Labels: `plan.relabel` changes the original's share of the label.


def transmix(plan, attention, shape):
    """Weights labels by attention to tokens. Chen et al. 2021, https://arxiv.org/abs/2111.09833."""
    seen = attention * plan.at(shape).weights(shape)  # Both [B, h, w]; `CutMix(grid=patch)`.
    return plan.relabel(seen.sum((1, 2)) / attention.sum((1, 2)))


def remix(plan, labels, counts, kappa=3.0, tau=0.5):
    """Favours much rarer classes in labels. Chou et al. 2020, https://arxiv.org/abs/2007.03943."""
    counts = jnp.asarray(counts, jnp.float32)
    own, other = counts[labels], counts[plan.pairing.take(labels)]
    none, every = own >= kappa * other, other >= kappa * own
    share = jnp.where(none & (plan.lam < tau), 0.0, plan.lam)
    return plan.relabel(jnp.where(every & (1 - plan.lam < tau), 1.0, share))


def binarised(plan, labels, threshold=0.2, **options):
    """Targets for binary cross-entropy. Wightman et al. 2021, https://arxiv.org/abs/2110.00476."""
    return (plan.labels(labels, **options) > threshold).astype(jnp.float32)


# Pairings: `Permutation(index)` takes any partners.


def c_mixup(key, targets, bandwidth):
    """Partners with similar targets [B, d]. Yao et al. 2022, https://arxiv.org/abs/2210.05775."""
    distance = ((targets[:, None] - targets[None]) ** 2).sum(2)
    alone = jnp.eye(len(targets), dtype=bool)
    logits = jnp.where(alone, -jnp.inf, -distance / (2 * bandwidth**2))
    return Permutation(jax.random.categorical(key, logits))


def k_mixup(images, k):
    """Pairs k images to k at least cost. Greenewald et al. 2021, https://arxiv.org/abs/2106.02933."""
    groups = images.reshape(-1, 2, k, images[0].size).astype(jnp.float32)

    def match(group):
        cost = ((group[0][:, None] - group[1][None]) ** 2).sum(2)
        i, j = optax.assignment.hungarian_algorithm(cost)
        return jnp.zeros(2 * k, jnp.int32).at[i].set(k + j).at[k + j].set(i)

    index = jax.vmap(match)(groups) + 2 * k * jnp.arange(len(groups))[:, None]
    return Permutation(index.reshape(-1))


# Several plans: images and labels go through the same ones.


def ricap(key, images, labels, beta=0.3):
    """Joins four images; dense labels. Takahashi et al. 2018, https://arxiv.org/abs/1811.09030."""
    rows, *spatial, _ = images.shape
    stop = jnp.broadcast_to(jnp.array([spatial]), (rows, 2))
    point = symmetric_beta(key, beta, (rows, 2)) * stop.astype(jnp.float32)
    point = jnp.round(point).astype(jnp.int32)
    right, lower = (
        Plan.of(images.shape, Roll(axis), region=Box(point.at[:, 1 - axis].set(0), stop))
        for axis in (1, 0)  # The lower part's partners are `donors`, cut at the same column.
    )
    below = right.images(jnp.roll(images, 2, 0)), right.labels(jnp.roll(labels, 2, 0))
    images = lower.images(right.images(images), donors=below[0])
    return images, lower.labels(right.labels(labels), donors=below[1])


def regmixup(key, loss_fn, network, images, labels, alpha=10.0, weight=1.0):
    """Adds a mixed loss to the clean one. Pinto et al. 2022, https://arxiv.org/abs/2206.14502."""
    plan = MixUp(alpha).plan(key, images.shape)
    mixed = plan.loss(loss_fn, network(plan.images(images)), labels)
    return loss_fn(network(images), labels) + weight * mixed


class ManifoldMixup(nnx.Module):
    """Mixes the input of one of its layers, chosen at random; the plan mixes the labels.
    Verma et al. 2018, https://arxiv.org/abs/1806.05236. Use `MixUp`, whose plan has no region.
    """

    def __init__(self, layers):
        """Takes the layers: functions of an array."""
        self.layers = nnx.List(layers)

    def __call__(self, x, plan=None, depth=0):
        """With a plan, layer number `depth` sees mixed inputs; `depth` may be traced."""
        for number, layer in enumerate(self.layers):
            x = layer(x if plan is None else jnp.where(number == depth, plan.images(x), x))
        return x


# Donors: the partners come from another batch.


def resizemix(key, images, labels, low=0.1, high=0.8):
    """Pastes a shrunk partner; dense labels. Qin et al. 2020, https://arxiv.org/abs/2012.11101."""
    rows, *spatial, _ = images.shape
    scale_key, key = jax.random.split(key)
    scale = jax.random.uniform(scale_key, (rows, 1), minval=low, maxval=high)
    box = inside(key, jnp.maximum(scale * jnp.array([spatial], jnp.float32), 1), spatial)

    def shrunk(image, start, stop):
        scale, start = (stop - start) / jnp.array(spatial), start.astype(jnp.float32)
        return jax.image.scale_and_translate(image, image.shape, (0, 1), scale, start, "linear")

    donors = jax.vmap(shrunk)(jnp.roll(images, 1, 0), box.start, box.stop)
    plan = Plan.of(images.shape, Roll(0), region=box)
    return plan.images(images, donors=donors), plan.labels(labels, donors=jnp.roll(labels, 1, 0))


def mixmatch(key, labelled, unlabelled, alpha=0.75):
    """Mixes labelled images with more images whose labels are guessed, all with all.
    Both are (images, dense labels). Berthelot et al. 2019, https://arxiv.org/abs/1905.02249.
    """
    images, labels = jax.tree.map(lambda *both: jnp.concatenate(both), labelled, unlabelled)
    mixed = MixUp(alpha, fold=True, pairing="permutation")(key, images, labels)
    rows = len(labelled[0])
    return [x[:rows] for x in mixed], [x[rows:] for x in mixed]


# Detection: the share of each object that stays visible.


def visible(plan, boxes, shape):
    """float32[B, N]: the share of boxes int32[B, N, 4] (y0 x0 y1 x1) that is not painted over."""
    weights = plan.weights(shape)
    y, x = (jnp.arange(n)[None, None] for n in weights.shape[1:])
    y0, x0, y1, x1 = (boxes[:, :, i, None] for i in range(4))
    rows, columns = ((y >= y0) & (y < y1)).astype(float), ((x >= x0) & (x < x1)).astype(float)
    area = rows.sum(2) * columns.sum(2)
    return jnp.einsum("bhw,bnh,bnw->bn", weights, rows, columns) / jnp.maximum(area, 1)


def photographs():
    """Eight crops of photographs that come with scikit-image, float32[8, 96, 96, 3]."""
    corners = {"astronaut": (0, 120), "chelsea": (60, 120), "coffee": (60, 120)}
    corners["rocket"] = (180, 220)
    whole = [getattr(skimage.data, name)()[y:, x:] for name, (y, x) in corners.items()]
    crops = [image[:192, :192] for image in whole] + [image[40:232, 60:252] for image in whole]
    return jnp.asarray(np.stack(crops).reshape(8, 96, 2, 96, 2, 3).mean((2, 4)) / 255, jnp.float32)


def gallery(key, images):
    """Yields the name of each method, its mixed images, and the originals' shares of the labels."""
    bright = images.mean(3)
    contrast = jnp.abs(bright - bright.mean((1, 2), keepdims=True))
    cells = contrast.reshape(8, 6, 16, 6, 16).mean((2, 4))
    mixers = [FMix(), SmoothMix(), HalfBox(), SaliencyMix(saliency=contrast)]
    mixers += [AttentiveCutMix(cells, 8), ClassMix((bright > 0.5).astype(jnp.int32))]
    named = [(type(mixer).__name__, mixer) for mixer in mixers]
    named.append(("C-Mixup", MixUp(pairing=c_mixup(key, bright.mean((1, 2))[:, None], 0.05))))
    named.append(("k-mixup", MixUp(pairing=k_mixup(images, 2))))
    for name, mixer in named:
        plan = mixer.plan(key, images.shape)
        yield name, plan.images(images), plan.lam
    plan = CutMix(grid=16).plan(key, images.shape)
    yield "TransMix", plan.images(images), transmix(plan, cells, (8, 6, 6, 1)).lam
    for name, method in (("RICAP", ricap), ("ResizeMix", resizemix)):
        mixed, labels = method(key, images, jnp.eye(8))
        yield name, mixed, jnp.diag(labels)


def main():
    """Prints the mean share of the originals for each method, and draws the gallery."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    parser.add_argument("--out", type=Path, default="runs/methods", help="default: runs/methods")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    images = photographs()
    found = tqdm(gallery(jax.random.key(args.seed), images), total=11, unit="method")
    found = [("original", images, jnp.ones(8)), *found]
    figure = Figure(figsize=(10, 1.35 * len(found)), layout="constrained")
    for row, (name, mixed, share) in zip(figure.subplots(len(found), 8), found, strict=True):
        print(f"{name:16} mean share of the original {share.mean():.2f}")
        row[0].set_ylabel(name, fontsize=9)
        for axes, image, weight in zip(row, mixed, share, strict=True):
            axes.imshow(np.clip(image, 0, 1))
            axes.set(xticks=[], yticks=[])
            axes.set_title(f"original: {100 * weight:.0f} %", fontsize=8, pad=2)
    figure.savefig(args.out / "methods.png", dpi=110)


if __name__ == "__main__":
    main()
