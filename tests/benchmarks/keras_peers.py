"""Keras 3 on JAX, jitted and eager. Keras draws for each example and pairs by a permutation."""

import functools
import os

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp
import keras


@functools.cache
def layer(method, layout, dtype):
    """Returns the layer of Keras, and a call of it that JAX compiles once."""
    form = "channels_last" if layout == "NHWC" else "channels_first"
    options = {"data_format": form, "dtype": dtype}
    if method == "cutmix":
        made = keras.layers.CutMix(factor=(1.0, 1.0), **options)
    else:
        made = keras.layers.MixUp(alpha=1.0, **options)
    return made, jax.jit(lambda state, data: made.stateless_call([], state, data, training=True))


def contenders(case):
    """Returns one call. Keras needs dense labels."""
    names = ("Keras", "Keras, eager")
    if case.per != "example" or case.method == "both":
        return dict.fromkeys(names, "draws for each example, one method")
    if case.dtype == "uint8":
        return dict.fromkeys(names, "gives float32 for uint8")
    images, ids = case.batch()
    images = jnp.asarray(images).astype(case.dtype) / jnp.asarray(255, case.dtype)
    labels = jax.nn.one_hot(ids, case.classes)
    data = {"images": images, "labels": labels}
    made, stateless = layer(case.method, case.layout, case.dtype)

    def eager():
        return jax.block_until_ready(made(data, training=True))

    eager()
    state = [v.value for v in made.non_trainable_variables]

    def jitted():
        nonlocal state
        mixed, state = jax.block_until_ready(stateless(state, data))
        return mixed

    return dict(zip(names, (jitted, eager), strict=True))
