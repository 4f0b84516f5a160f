"""The law of purity, outside of jit: an eager call is the jitted one to the bit, and compiles once.

Here programs are optimised, as only then a compiler has something to rewrite.
"""

import jax
import jax.numpy as jnp
import pytest
from helpers import (
    SHAPE,
    assert_same,
    by_plan,
    call,
    compiled,
    every_mixer,
    few_mixers,
    fresh,
    images_and_labels,
    make,
)

from jaxmix import CutMix, Mixer, MixUp


@pytest.mark.parametrize("alpha, seed", [(0.8, 0), (0.2, 0), (0.2, 1)])
def test_eager_is_jit_with_one_lambda_for_the_batch(alpha, seed):
    """A compiler is free to fuse either product of a blend into its sum: the last bit differed."""
    mixer, images = MixUp(alpha, per="batch"), jax.random.uniform(fresh(1), (8, 32, 32, 3))

    def draw(key):
        return mixer.plan(key, images.shape)

    def mixed(key, images):
        return draw(key).images(images)

    # An eager call is these two programs, here by everybody's generator of loops.
    plan = compiled(draw, fresh(seed))(fresh(seed))
    eager = compiled(type(plan).images, plan, images)(plan, images)
    for whole in (mixed, mixer):
        assert_same(compiled(whole, fresh(seed), images)(fresh(seed), images), eager)


@pytest.mark.parametrize("rows", [4, 8])
@pytest.mark.parametrize("fold", [False, True])
def test_eager_is_jit_with_dense_labels(fold, rows):
    """A compiler rewrote how lambda is computed together with what is done with it: jax 0.12."""
    mixer = MixUp(0.4, per="batch", fold=fold)
    labels = jax.nn.softmax(jax.random.normal(fresh(2), (rows, 4)))
    batch = jax.random.uniform(fresh(1), (rows, 6, 6, 3)), labels
    eager = call(mixer, fresh(), *batch)
    for mix in (jax.jit(call), by_plan, jax.jit(by_plan)):
        assert_same(tuple(mix(mixer, fresh(), *batch)[-2:]), eager)


@few_mixers
def test_eager_is_jit_with_the_mixer_static_or_closed_over(name):
    mixer, batch = make(name), images_and_labels()
    eager = call(mixer, fresh(), *batch)
    assert_same(jax.jit(call, static_argnums=0)(mixer, fresh(), *batch), eager)
    assert_same(jax.jit(lambda *batch: call(mixer, *batch))(fresh(), *batch), eager)


@pytest.mark.parametrize("mixer", [CutMix(0.3), MixUp(0.3)], ids=["cutmix", "mixup"])
def test_eager_draws_are_jitted_draws(mixer):
    """In every one of many rows: unless it is jitted inside, the last bit of some would differ."""
    shape = (4096, 9, 7, 1)
    eager = mixer.plan(fresh(), shape)
    assert_same(jax.jit(lambda key: mixer.plan(key, shape))(fresh()), eager)
    assert_same(jax.jit(lambda mixer, key: mixer.plan(key, shape))(mixer, fresh()), eager)


def test_eager_calls_are_jitted_inside():
    """A mixer's own code runs when it is traced: once for an eager call and its like."""
    traces = []

    class Counted(Mixer):
        strength: float = 0.5

        def draw(self, key, rows, spatial):
            traces.append(rows)
            return None, self.strength * jax.random.uniform(key, (rows,))

    for seed in range(3):
        Counted(0.1 * seed).plan(fresh(seed), SHAPE)
    assert len(traces) == 1
    for seed in range(3):
        Counted(0.1 * seed)(fresh(seed), jnp.zeros(SHAPE))
    assert len(traces) <= 2


@every_mixer
def test_new_keys_and_numbers_compile_nothing(name, caplog):
    """Eager calls too: modes are static, numbers are traced in the library's own jit."""
    mixer, batch, keys = make(name), images_and_labels(), [fresh(0), fresh(1)]
    smaller = jax.tree.map(lambda x: 0.9 * x if isinstance(x, float) else x, mixer)
    call(mixer, keys[0], *batch)
    with jax.log_compiles():
        call(smaller, keys[1], *batch)
        assert "Compiling" not in caplog.text
        jax.jit(lambda x: x + 1)(batch[0])
        assert "Compiling" in caplog.text
