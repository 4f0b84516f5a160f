"""The contenders in JAX: jaxmix, copies of the batch, and the code that people copy."""

import functools

import jax
import jax.numpy as jnp

from jaxmix import CutMix, MixUp, RandomChoice

from .cases import Case


def mixer(method, per, pairing="swap"):
    """Returns the mixer of a case."""
    both = CutMix(per=per, pairing=pairing), MixUp(per=per, pairing=pairing)
    return {"cutmix": both[0], "mixup": both[1], "both": RandomChoice(both, per=per)}[method]


def naive(method, per, classes, key, images, labels):
    """Mixes as blogs do: `jax.random.beta`, a permutation by index, a mask of four axes."""
    lam_key, perm_key, y_key, x_key, choice_key = jax.random.split(key, 5)
    rows, height, width, _ = images.shape
    drawn = rows if per == "example" else 1
    lam = jax.random.beta(lam_key, 1.0, 1.0, (drawn,))
    partner = jax.random.permutation(perm_key, rows)
    wide = images.astype(jnp.float32) if images.dtype == jnp.uint8 else images
    weight = lam[:, None, None, None].astype(wide.dtype)
    blended = (weight * wide + (1 - weight) * wide[partner]).astype(images.dtype)

    half = jnp.sqrt(1 - lam) / 2
    y, x = (jax.random.randint(k, (drawn,), 0, n) for k, n in ((y_key, height), (x_key, width)))
    top, bottom = (jnp.clip(y + s * (height * half).astype(int), 0, height) for s in (-1, 1))
    left, right = (jnp.clip(x + s * (width * half).astype(int), 0, width) for s in (-1, 1))
    row, column = jnp.arange(height)[None, :, None], jnp.arange(width)[None, None, :]
    box = (row >= top[:, None, None]) & (row < bottom[:, None, None])
    box &= (column >= left[:, None, None]) & (column < right[:, None, None])
    pasted = jnp.where(box[..., None], images[partner], images)
    kept = 1 - (bottom - top) * (right - left) / (height * width)

    if method == "both":
        choice = jax.random.bernoulli(choice_key, 0.5, (drawn,))
        mixed = jnp.where(choice[:, None, None, None], pasted, blended)
        lam = jnp.where(choice, kept, lam)
    else:
        mixed, lam = (pasted, kept) if method == "cutmix" else (blended, lam)
    one_hot = jax.nn.one_hot(labels, classes)
    return mixed, lam[:, None] * one_hot + (1 - lam[:, None]) * one_hot[partner]


def naive_first(method, per, classes, key, images, labels):
    """The same for channels-first images."""
    mixed, soft = naive(method, per, classes, key, jnp.moveaxis(images, 1, -1), labels)
    return jnp.moveaxis(mixed, -1, 1), soft


@functools.cache
def programs(method, per, layout, classes):
    """Returns jaxmix and naive code as functions of `(key, images, labels)`, each made once."""
    made = mixer(method, per)
    axis = -1 if layout == "NHWC" else 1
    plain = naive if layout == "NHWC" else naive_first

    def ours(key, images, labels):
        return made(key, images, labels, num_classes=classes, channel_axis=axis)

    def theirs(key, images, labels):
        return plain(method, per, classes, key, images, labels)

    return ours, theirs


def copy(key, images, labels):
    """Copies the images, the lower bound."""
    return jnp.copy(images)


def both_read(key, images, labels=None):
    """Reads each image and its partner and writes one image, with almost no other work."""
    bits = jax.lax.bitcast_convert_type(images, f"uint{8 * images.dtype.itemsize}")
    return jax.lax.bitcast_convert_type(bits ^ bits[::-1], images.dtype)


def contenders(case: Case):
    """Returns calls that block until their results are ready."""
    images, labels = case.batch()
    images = jnp.asarray(images)
    if case.dtype != "uint8":
        images = images.astype(case.dtype) / jnp.asarray(255, case.dtype)
    labels = jnp.asarray(labels)
    ours, theirs = programs(case.method, case.per, case.layout, case.classes)
    key = jax.random.key(case.seed)
    return {
        "copy, donated": donating(copy, key, images, labels),
        "both read, donated": donating(both_read, key, images, labels),
        "copy, fresh": blocking(jax.jit(copy), key, images, labels),
        "jaxmix, donated": donating(ours, key, images, labels),
        "jaxmix": blocking(jax.jit(ours), key, images, labels),
        "jaxmix, eager": blocking(ours, key, images, labels),
        "naive JAX, donated": donating(theirs, key, images, labels),
        "naive JAX": blocking(jax.jit(theirs), key, images, labels),
        "naive JAX, eager": blocking(theirs, key, images, labels),
    }


def blocking(call, *args):
    """Returns a call into fresh buffers."""
    return lambda: jax.block_until_ready(call(*args))


@functools.cache
def reusing(call):
    """Returns a jitted `(buffers, *args)` that writes the results of `call(*args)` into buffers."""
    return jax.jit(lambda buffers, *args: call(*args), donate_argnums=0, keep_unused=True)


def donating(call, *args):
    """Returns a call that writes its results into the buffers of the previous results."""
    into, shapes = reusing(call), jax.eval_shape(call, *args)
    buffers = [jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)]

    def run():
        buffers[0] = jax.block_until_ready(into(buffers[0], *args))

    return run
