"""Mixers that look at the images: a field of rows, and the drawn pairing inside of `draw`."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import axis_types, mesh_of
from jax.sharding import NamedSharding, PartitionSpec

import jaxmix
from jaxmix import (
    CutMix,
    Flip,
    Mask,
    Mixer,
    MixUp,
    Neighbour,
    RandomApply,
    RandomChoice,
    Roll,
    Swap,
)

SHAPE = (8, 6, 5, 3)
CONTENT = np.random.default_rng(0).random(SHAPE[:3], np.float32)
ROWS = {"rows": True}


class Brighter(Mixer):
    """Paints the partner where it is brighter than the original."""

    content: jax.Array | np.ndarray | None = dataclasses.field(default=None, metadata=ROWS)

    def draw(self, key, rows, spatial):
        """A mask that needs the content of both rows."""
        return Mask(self.pairing.take(self.content) > self.content), None


class Related(Mixer):
    """Blends by how close two rows are; the content is a pytree."""

    content: dict | None = dataclasses.field(default=None, metadata=ROWS)

    def draw(self, key, rows, spatial):
        """An opacity from the distance between the rows."""
        distance = jnp.abs(self.pairing.take(self.content["level"]) - self.content["level"])
        return None, jnp.clip(distance, 0, 1)


class Nosy(Mixer):
    """Uses the pairing and nothing of the rows."""

    use: str = dataclasses.field(default="take", metadata={"static": True})

    def draw(self, key, rows, spatial):
        """Half an opacity, after a look at the pairing."""
        {
            "take": lambda: self.pairing.take(jnp.arange(rows)),
            "partner": lambda: self.pairing.partner(rows),
            "own": lambda: self.pairing.own(rows),
            "random": lambda: self.pairing.random,
            "groups": lambda: self.pairing.groups,
        }[self.use]()
        return None, jnp.full((rows,), 0.5)


class Jitted(Mixer):
    """Its draw is jitted, so that the mixer passes through a jit as a pytree."""

    strength: float = 0.5

    def draw(self, key, rows, spatial):
        """The same opacity for all rows."""
        return None, jax.jit(lambda self: jnp.full((rows,), self.strength))(self)


def expected(partner):
    """What `Brighter` paints: bool[B, H, W]."""
    return CONTENT[np.asarray(partner)] > CONTENT


PAIRINGS = ["swap", "flip", Flip(groups=2), "roll", Roll(-3), "permutation"]
every_pairing = pytest.mark.parametrize("pairing", PAIRINGS, ids=str)


@every_pairing
@pytest.mark.parametrize("how", ["eager", "jit"])
def test_the_drawn_pairing_takes_the_partners_content(pairing, how):
    mixer = Brighter(content=CONTENT, pairing=pairing)
    draw = jax.jit(lambda m, k: m.plan(k, SHAPE)) if how == "jit" else lambda m, k: m.plan(k, SHAPE)
    plan = draw(mixer, jax.random.key(0))
    assert not np.array_equal(plan.partner, np.arange(8))
    np.testing.assert_array_equal(plan.region.painted, expected(plan.partner))
    np.testing.assert_allclose(plan.lam, 1 - expected(plan.partner).mean((1, 2)), atol=1e-6)


@every_pairing
@pytest.mark.parametrize("per", ["example", "batch"])
def test_in_policies_too(pairing, per):
    """Whatever the policy's granularity, each row has a draw of its own with its own partner."""
    bright = Brighter(content=CONTENT, pairing=pairing)
    mixer = RandomApply(RandomChoice((bright, bright), per=per), prob=0.7, per=per)
    plan = mixer.plan(jax.random.key(1), SHAPE)
    on = np.asarray(plan.lam) < 1
    assert on.any() or per == "batch"
    painted = np.asarray(plan.region.painted)
    np.testing.assert_array_equal(painted[on], expected(plan.partner)[on])
    assert not painted[~on].any()


@axis_types
@pytest.mark.parametrize("pairing", ["swap", Flip(groups=8), "roll", "permutation"], ids=str)
def test_on_a_mesh_it_draws_what_it_draws_on_one_device(pairing, axis_type):
    """And it is traced once for all contents and keys."""
    shape = (16, *SHAPE[1:])
    rows = NamedSharding(mesh_of({"batch": 8}, axis_type), PartitionSpec("batch"))
    bright = Brighter(pairing=pairing)
    traced = []

    @jax.jit
    def mix(content, key, images):
        traced.append(key)
        plan = dataclasses.replace(bright, content=content).plan(key, shape)
        return plan.lam, plan.images(images)

    for seed in range(3):
        rng = np.random.default_rng(seed)
        content, images = rng.random(shape[:3], np.float32), rng.random(shape, np.float32)
        plan = dataclasses.replace(bright, content=content).plan(jax.random.key(seed), shape)
        on_mesh = (jax.device_put(x, rows) for x in (content, images))
        lam, mixed = mix(next(on_mesh), jax.random.key(seed), next(on_mesh))
        np.testing.assert_array_equal(lam, plan.lam)
        np.testing.assert_array_equal(mixed, plan.images(images))
        assert 0 < lam.mean() < 1
    assert len(traced) == 1


def test_beside_other_mixers():
    bright = Brighter(content=CONTENT, pairing="permutation")
    others = CutMix(pairing="permutation"), MixUp(pairing="permutation")
    mixer = RandomChoice((bright, *others), probs=(1.0, 0.0, 0.0))
    plan = mixer.plan(jax.random.key(2), SHAPE)
    np.testing.assert_array_equal(np.asarray(plan.region.painted), expected(plan.partner))


class Wrapped(Mixer):
    """A user's own mixer of mixers, which are fields and in a list of one."""

    first: Mixer
    others: tuple

    def draw(self, key, rows, spatial):
        """What the two paint together."""
        drawn = [mixer.draw(key, rows, spatial)[0].painted for mixer in (self.first, *self.others)]
        return Mask(drawn[0] & drawn[1]), None


@every_pairing
def test_in_a_mixer_of_mixers_of_ones_own(pairing):
    bright = Brighter(content=CONTENT)
    plan = Wrapped(bright, [bright], pairing=pairing).plan(jax.random.key(9), SHAPE)
    np.testing.assert_array_equal(plan.region.painted, expected(plan.partner))


def test_content_may_be_a_pytree():
    level = np.linspace(0, 1, 8, dtype=np.float32)
    plan = Related(content={"level": level}, pairing="roll").plan(jax.random.key(3), SHAPE)
    np.testing.assert_allclose(1 - plan.lam, np.abs(np.roll(level, 1) - level), atol=1e-6)


def test_new_content_is_no_new_program():
    traces = []

    @jax.jit
    def step(mixer, key, images):
        traces.append(mixer)
        return mixer(key, images)

    for seed in range(3):
        content = np.random.default_rng(seed).random(SHAPE[:3], np.float32)
        step(Brighter(content=content), jax.random.key(0), np.ones(SHAPE, np.float32))
    assert len(traces) == 1


def test_on_the_neighbouring_device():
    def on_device(content):
        mixer = Brighter(content=content, pairing=Neighbour("batch"))
        return mixer.plan(jax.random.key(0), (4, *SHAPE[1:])).region.painted

    painted = jax.vmap(on_device, axis_name="batch")(CONTENT.reshape(2, 4, *SHAPE[1:3]))
    theirs = np.roll(CONTENT, 4, axis=0)
    np.testing.assert_array_equal(painted.reshape(SHAPE[:3]), theirs > CONTENT)


@pytest.mark.parametrize("per", ["pair", "batch"])
def test_content_of_rows_needs_a_draw_for_each(per):
    with pytest.raises(ValueError, match=rf"Brighter: per.*\"example\".*content.*{per}") as raised:
        Brighter(content=CONTENT, per=per)
    assert type(raised.value) is ValueError
    assert Brighter(per=per).per == per, "without content there is nothing to mistake"


def test_a_policy_for_the_batch_may_have_content_of_rows():
    """It draws for each row, whatever the granularity of what it decides itself."""

    class Gated(RandomApply):
        content: jax.Array | np.ndarray | None = dataclasses.field(default=None, metadata=ROWS)

        def draw(self, key, rows, spatial):
            region, opacity = super().draw(key, rows, spatial)
            return Mask(region.painted & (self.pairing.take(self.content) > 0.5)), opacity

    mixer = Gated(Brighter(content=CONTENT), prob=1.0, content=CONTENT, per="batch")
    plan = mixer.plan(jax.random.key(10), SHAPE)
    theirs = CONTENT[np.asarray(plan.partner)]
    np.testing.assert_array_equal(plan.region.painted, (theirs > CONTENT) & (theirs > 0.5))


@pytest.mark.parametrize("per", ["pair", "batch"])
def test_a_withheld_pairing_is_of_its_kind(per):
    """So that a draw is not misled, and cannot compare what it must not use."""

    class Comparing(Mixer):
        def draw(self, key, rows, spatial):
            assert isinstance(self.pairing, Swap) and not isinstance(self.pairing, Roll)
            assert self.pairing.mutual
            return None, jnp.full((rows,), 0.5 if self.pairing == Swap() else 0.25)

    with pytest.raises(ValueError, match=r"Comparing\.draw: self\.pairing .*example"):
        Comparing(per=per).plan(jax.random.key(11), SHAPE)
    assert Comparing().plan(jax.random.key(11), SHAPE).lam[0] == 0.5


@pytest.mark.parametrize("use", ["take", "partner", "own", "random", "groups"])
@pytest.mark.parametrize("per", ["pair", "batch"])
def test_no_use_of_the_pairing_in_a_draw_for_several_rows(per, use):
    assert Nosy(use=use, pairing="flip").plan(jax.random.key(4), SHAPE).lam[0] == 0.5
    nosy = Nosy(use=use, per=per, pairing="flip")
    for mixer in (nosy, RandomChoice((MixUp(pairing="flip"), nosy))):
        with pytest.raises(ValueError, match=rf"Nosy\.draw: self\.pairing .*example.*{per}"):
            mixer.plan(jax.random.key(4), SHAPE)
        mix = jax.jit(lambda key, mixer=mixer: mixer(key, jnp.zeros(SHAPE)))
        with pytest.raises(ValueError, match=rf"Nosy\.draw: self\.pairing .*example.*{per}"):
            mix(jax.random.key(4))


@pytest.mark.parametrize("per", ["example", "pair", "batch"])
def test_a_draw_may_print_the_mixer_and_make_another_of_it(per):
    class Curious(Mixer):
        strength: float = 0.5

        def draw(self, key, rows, spatial):
            other = dataclasses.replace(self, strength=0.25)
            assert "Curious(" in repr(self) and jax.tree.map(lambda leaf: leaf, other) == other
            return None, jnp.full((rows,), other.strength)

    np.testing.assert_array_equal(Curious(per=per).plan(jax.random.key(8), SHAPE).lam, 0.75)


@pytest.mark.parametrize("per", ["example", "pair", "batch"])
def test_a_draw_that_leaves_the_pairing_alone_may_hand_the_mixer_to_jit(per):
    plan = Jitted(0.25, per=per).plan(jax.random.key(5), SHAPE)
    np.testing.assert_array_equal(plan.lam, np.full(8, 0.75))


@pytest.mark.parametrize(
    "content, error",
    [
        (CONTENT[:4], r"content must have batch size 8, like the images, got float32\[4, 6, 5\]"),
        (np.float32(1), r"content must have a batch axis"),
        ([[1.0]] * 8, r"content must have a batch axis"),
    ],
    ids=["rows", "scalar", "list"],
)
def test_content_of_other_rows_is_refused(content, error):
    with pytest.raises((TypeError, ValueError), match=r"Brighter\.draw: " + error):
        Brighter(content=content).plan(jax.random.key(6), SHAPE)


def test_the_repr_shows_no_content():
    text = repr(Brighter(content=CONTENT, pairing="roll"))
    assert text == "Brighter(content=f32[8,6,5], pairing=Roll())"
    assert repr(Brighter()) == "Brighter()"


def test_it_obeys_the_painted_label():
    images = np.broadcast_to(np.eye(8, dtype=np.float32)[:, None, None], (8, 6, 5, 8))
    mixer = RandomChoice((Brighter(content=CONTENT), jaxmix.MixUp()))
    mixed, labels = mixer(jax.random.key(7), images, np.arange(8), num_classes=8)
    np.testing.assert_allclose(np.asarray(mixed).mean((1, 2)), labels, atol=1e-6)
