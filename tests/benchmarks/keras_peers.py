"""Keras 3 on the JAX backend, jitted and eager. It draws for each example, with a permutation."""

import os

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp
import keras


def contenders(case):
    """One call, on dense labels, which it needs."""
    names = ("Keras", "Keras, eager")
    if case.per != "example" or case.method == "both":
        return dict.fromkeys(names, "draws for each example, one method")
    if case.dtype == "uint8":
        return dict.fromkeys(names, "gives float32 for uint8")
    images, ids = case.batch()
    images = jnp.asarray(images).astype(case.dtype) / jnp.asarray(255, case.dtype)
    labels = jax.nn.one_hot(ids, case.classes)
    form = "channels_last" if case.layout == "NHWC" else "channels_first"
    options = {"data_format": form, "dtype": case.dtype}
    if case.method == "cutmix":
        layer = keras.layers.CutMix(factor=(1.0, 1.0), **options)
    else:
        layer = keras.layers.MixUp(alpha=1.0, **options)

    def eager():
        return jax.block_until_ready(layer({"images": images, "labels": labels}, training=True))

    eager()
    state = [v.value for v in layer.non_trainable_variables]

    @jax.jit
    def stateless(state, images, labels):
        data = {"images": images, "labels": labels}
        return layer.stateless_call([], state, data, training=True)

    def jitted():
        nonlocal state
        mixed, state = jax.block_until_ready(stateless(state, images, labels))
        return mixed

    return dict(zip(names, (jitted, eager), strict=True))
