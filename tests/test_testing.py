"""The laws as a tool: every mixer of the library obeys them, and each break of one is named."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import pytest
from helpers import MIXERS, PAIRINGS, every_mixer, make

from jaxmix import CutMix, Mask, Mixer, MixUp, Plan, RandomChoice, testing

PAIRED = [*PAIRINGS][:-1]  # Without the index of six rows.


@every_mixer
def test_every_mixer_obeys_the_laws(name):
    pairing = PAIRED[[*MIXERS].index(name) % len(PAIRED)]
    testing.check(make(name, pairing=pairing))


@pytest.mark.parametrize(
    "shape, channel_axis",
    [((7, 3, 6, 5), 1), ((4, 9), None)],
    ids=str,
)
def test_in_any_layout_of_any_rank(shape, channel_axis):
    testing.check(make("mixup"), shape=shape, channel_axis=channel_axis)


def test_content_of_each_row():
    class Brighter(Mixer):
        content: jax.Array | None = dataclasses.field(default=None, metadata={"rows": True})

        def draw(self, key, rows, spatial):
            return Mask(self.pairing.take(self.content) > self.content), None

    testing.check(Brighter(content=jax.random.uniform(jax.random.key(0), (8, 6, 5))))


# What breaks a law, and what the error says.

BREAKS = {  # A method of a plan, what is done to its result; the law, and what was found.
    "labels-of-others": (
        "labels",
        lambda y: y[::-1],
        "labels match pixels",
        "labels with smoo.*: ",
    ),
    "beyond-1": (
        "labels",
        lambda y: y + 2**-21,
        "labels match pixels",
        r"the sums of their rows: 1\.0+",
    ),
    "dtype": (
        *("images", lambda x: x.astype(jnp.float32), "bits and dtypes"),
        r"bfloat16 pixels.*: float32\[8, 6, 5, 3\] instead of bfloat16\[8, 6, 5, 3\]",
    ),
    "signs": (
        *("images", lambda x: x + jnp.zeros((), x.dtype), "bits and dtypes"),
        r"float32 pixels that show one image: 0\.0 instead of -0\.0 at",
    ),
    "rounding": (
        *("images", lambda x: x - (x > 1).astype(x.dtype) if x.dtype == "uint8" else x),
        *("bits and dtypes", r"uint8 pixels that .* instead of \d"),
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_break_is_named(name, monkeypatch):
    method, broken, law, found = BREAKS[name]
    right = getattr(Plan, method)
    monkeypatch.setattr(Plan, method, lambda *args, **how: broken(right(*args, **how)))
    with pytest.raises(
        AssertionError, match=rf"the law '{law}' does not hold for .*: {found}"
    ) as raised:
        testing.check(RandomChoice((CutMix(), MixUp())))
    assert "RandomChoice(mixers=(CutMix(), MixUp()))" in str(raised.value)
    assert " elements differ" in str(raised.value) or name == "dtype"


def test_a_draw_that_is_not_pure_is_named():
    counter = itertools.count(1)

    class Moody(Mixer):
        def draw(self, key, rows, spatial):
            return None, jnp.full((rows,), 0.5 / next(counter))

    with pytest.raises(AssertionError, match=r"'pure' does not hold for Moody\(\) on .*: under"):
        testing.check(Moody())


def test_rows_that_are_not_drawn_alike_are_named():
    class Uneven(MixUp):
        def plan(self, key, shape, **how):
            plan = super().plan(key, shape, **how)
            return dataclasses.replace(
                plan, lam=plan.lam + 1e-7 * (jnp.arange(shape[0]) % 2).astype(jnp.float32)
            )

    with pytest.raises(
        AssertionError, match=r"'granularity' does not hold for Uneven\(per='pair'\) on"
    ):
        testing.check(Uneven())


def test_bad_arguments():
    with pytest.raises(TypeError, match=r"testing\.check: mixer must be a mixer .*CutMix\(\)"):
        testing.check(CutMix)
    with pytest.raises(TypeError, match=r"testing\.check: shape must be"):
        testing.check(CutMix(), shape=8)
    with pytest.raises(ValueError, match=r"CutMix\.plan: .*rank 3"):
        testing.check(CutMix(), shape=(8, 6, 5))
