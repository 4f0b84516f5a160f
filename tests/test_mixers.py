"""Mixers: plain data that can go anywhere, what `per` shares, and a user's own method."""

import dataclasses
import functools
import math
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxmix
from jaxmix import (
    Box,
    CutMix,
    Flip,
    Mask,
    Mixer,
    MixUp,
    Permutation,
    RandomApply,
    RandomChoice,
    Roll,
    Swap,
)

SHAPE = (8, 10, 12, 3)
# Fixed keys: a right law passes always, and fails by chance for one choice of keys in 10,000.
RARE = 1e-4


class Halves(Mixer):
    """A user's own method: the partner's left half, faintly."""

    strength: float = 0.5

    def draw(self, key, rows, spatial):
        """A mask of the left half, and an opacity below `strength`."""
        height, width = spatial
        left = jnp.broadcast_to(jnp.arange(width) < width // 2, (rows, height, width))
        return Mask(left), jax.random.uniform(key, (rows,)) * self.strength


class Stripe(Mixer):
    """A user's own method with a mode: a stripe of rows or of columns, opaque."""

    share: float = 0.25
    axis: int = dataclasses.field(default=0, metadata={"static": True})

    def draw(self, key, rows, spatial):
        """A box that is the whole image but for one axis."""
        extent = spatial[self.axis]
        start = jax.random.randint(key, (rows,), 0, extent // 2)
        stop = start + jnp.asarray(extent * self.share, jnp.int32)
        along = jnp.arange(len(spatial))[None] == self.axis
        sizes = jnp.asarray(spatial, jnp.int32)[None]
        return Box(
            jnp.where(along, start[:, None], 0), jnp.where(along, stop[:, None], sizes)
        ), None


class Whole(Halves):
    """A user's own method of a user's own method, with another default."""

    strength: float = 1.0


MIXERS = [
    CutMix(),
    CutMix(0.3, per="batch", pairing="roll", box="timm"),
    CutMix(per="pair", box="contained"),
    CutMix(minmax=(0.2, 0.8), pairing=Flip(groups=4)),
    MixUp(0.2, pairing=Permutation()),
    MixUp(per="batch", pairing=Roll(shift=3), fold=True),
    RandomChoice((CutMix(), MixUp(alpha=0.8))),
    RandomChoice([CutMix(), MixUp(), CutMix(box="timm")], probs=[0.1, 0.2, 0.3], per="batch"),
    RandomApply(CutMix(), prob=0.9, per="pair"),
    RandomApply(RandomChoice((RandomApply(MixUp()), CutMix()), probs=(1, 3)), prob=0.25),
    Halves(),
    Halves(strength=0.25, per="batch", pairing="roll"),
    Stripe(axis=1, per="pair"),
]
mixers = pytest.mark.parametrize("mixer", MIXERS, ids=str)
# Of each kind one, where every mixer costs a compilation.
some_mixers = pytest.mark.parametrize("mixer", [MIXERS[i] for i in (1, 9, 12)], ids=str)
NAMES = {**vars(jaxmix), "Halves": Halves, "Stripe": Stripe}


PERMUTED = "MixUp(pairing=Permutation(index=i32[3]))"


def same(first, second):
    """Equal trees, bit for bit."""
    assert jax.tree.structure(first) == jax.tree.structure(second)
    jax.tree.map(np.testing.assert_array_equal, first, second)


# Data -------------------------------------------------------------------------------------------


@mixers
def test_is_a_frozen_dataclass(mixer):
    assert isinstance(mixer, Mixer) and dataclasses.is_dataclass(mixer)
    for field in dataclasses.fields(mixer):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(mixer, field.name, getattr(mixer, field.name))


@mixers
def test_repr_evaluates_to_an_equal_mixer(mixer):
    copy = eval(repr(mixer), NAMES)
    assert copy == mixer and hash(copy) == hash(mixer) and repr(copy) == repr(mixer)


@pytest.mark.parametrize(
    "mixer, text",
    [
        (CutMix(), "CutMix()"),
        (CutMix(1, pairing="swap", grid=1), "CutMix()"),
        (CutMix(pairing="flip"), "CutMix(pairing=Flip())"),
        (
            CutMix(0.5, per="batch", minmax=[0, 1]),
            "CutMix(alpha=0.5, per='batch', minmax=(0.0, 1.0))",
        ),
        (MixUp(np.float32(0.5), pairing=Roll(2)), "MixUp(alpha=0.5, pairing=Roll(shift=2))"),
        (MixUp(jnp.float32(0.5), fold=True), "MixUp(alpha=0.5, fold=True)"),
        (MixUp(pairing=Permutation(np.arange(3, dtype=np.int32))), PERMUTED),
        (RandomApply(CutMix()), "RandomApply(mixer=CutMix())"),
        (RandomChoice([CutMix()], [1]), "RandomChoice(mixers=(CutMix(),), probs=(1.0,))"),
        (RandomChoice([CutMix()], jnp.ones(1)), "RandomChoice(mixers=(CutMix(),), probs=f32[1])"),
        (Halves(1), "Halves(strength=1)"),
        (Whole(1), "Whole(strength=1)"),
        (Whole(1.0), "Whole()"),
        (Halves(0.5), "Halves()"),
        (Stripe(axis=1, per="pair"), "Stripe(axis=1, per='pair')"),
    ],
)
def test_repr_leaves_out_what_is_so_by_default(mixer, text):
    assert repr(mixer) == text


def test_repr_of_unusual_classes():
    class Required(Mixer):
        power: float
        pairing: Roll = dataclasses.field(kw_only=True)

        def draw(self, key, rows, spatial):
            return None, None

    class Made(Mixer):
        power: float = 1.0

        def __init__(self, exponent):
            super().__init__()
            self._set("power", 2.0**exponent)

    class Listed(Mixer):
        weights: tuple = (0.5, 0.5)
        table: np.ndarray | None = dataclasses.field(default_factory=lambda: np.zeros(2))

        def draw(self, key, rows, spatial):
            return None, None

    assert repr(Listed()) == "Listed(table=f64[2])"
    text = "Listed(weights=(f32[2], f32[2]), table=f64[2])"
    assert repr(Listed((np.ones(2, "f4"), np.ones(2, "f4")))) == text
    assert repr(Required(power=2.0, pairing=Roll(3))) == (
        "Required(power=2.0, pairing=Roll(shift=3))"
    )
    assert repr(Made(3)) == "Made(power=8.0)"


def test_repr_of_tracers_and_placeholders():
    texts = []

    @jax.jit
    def step(alpha, probs):
        texts.append(repr(RandomChoice((CutMix(alpha), MixUp()), probs=probs)))
        return alpha

    step(jnp.float32(1), jnp.ones(2, jnp.bfloat16))
    assert texts == ["RandomChoice(mixers=(CutMix(alpha=f32[]), MixUp()), probs=bf16[2])"]
    specs = jax.tree.map(lambda _: jax.ShapeDtypeStruct((), jnp.int8), MixUp())
    assert repr(specs) == "MixUp(alpha=i8[])"
    deleted = jnp.float32(2)
    mixer = MixUp(deleted)
    deleted.delete()
    assert repr(mixer) == "MixUp(alpha=f32[])"


@pytest.mark.parametrize(
    "make",
    [CutMix, MixUp, lambda n: RandomApply(MixUp(), n), lambda n: CutMix(minmax=(0, n)),
     lambda n: RandomChoice((MixUp(), CutMix()), probs=(n, 1))],
    ids=["CutMix", "MixUp", "RandomApply", "minmax", "probs"],
)  # fmt: skip
def test_an_int_is_the_float_and_compiles_nothing_new(make):
    traces = []

    @jax.jit
    def draw(mixer, key):
        traces.append(mixer)
        return mixer.plan(key, SHAPE).lam

    for number in (1.0, 1, np.int64(1), np.float32(1), True):
        mixer = make(number)
        assert all(type(leaf) is float for leaf in jax.tree.leaves(mixer))
        assert mixer == make(1.0) and hash(mixer) == hash(make(1.0))
        draw(mixer, jax.random.key(0))
    assert len(traces) == 1


def test_fields_of_ones_own_keep_their_type():
    class Own(Mixer):
        count: int = 3
        flag: bool = dataclasses.field(default=True, metadata={"static": True})

        def draw(self, key, rows, spatial):
            return None, None

    for count in (1, 1.0, jnp.int32(1)):
        assert type(Own(count).count) is type(count)
    assert Own().flag is True and type(Own(np.int64(4)).count) is int


@mixers
def test_pickles(mixer):
    copy = pickle.loads(pickle.dumps(mixer))
    assert copy == mixer and hash(copy) == hash(mixer) and type(copy) is type(mixer)


@mixers
def test_differs_from_all_others(mixer):
    assert [other for other in MIXERS if other == mixer] == [mixer]
    assert mixer != "mixer" and mixer is not None


@mixers
def test_replace_makes_a_changed_copy(mixer):
    other = dataclasses.replace(mixer, per="example")
    assert other.per == "example" and type(other) is type(mixer)
    assert dataclasses.replace(other, per=mixer.per) == mixer


@mixers
def test_flattens_to_its_numbers(mixer):
    leaves, tree = jax.tree.flatten(mixer)
    assert leaves and all(isinstance(leaf, int | float) for leaf in leaves)
    assert jax.tree.unflatten(tree, leaves) == mixer
    assert isinstance(hash(tree), int)


@pytest.mark.parametrize(
    "mixer, numbers",
    [
        (CutMix(), [1.0]),
        (CutMix(0.3, per="batch", pairing="roll", box="timm"), [0.3]),
        (MixUp(0.2, pairing=Flip(2)), [0.2]),
        (RandomApply(MixUp(0.2), prob=0.9), [0.2, 0.9]),
        (RandomChoice((CutMix(), MixUp(0.8)), probs=(0.25, 0.75)), [0.25, 0.75, 0.8, 1.0]),
        (RandomChoice((CutMix(0.4), MixUp(0.8))), [0.4, 0.8]),
        (Halves(strength=0.3), [0.3]),
        (Stripe(share=0.5, axis=1), [0.5]),
    ],
    ids=str,
)
def test_numbers_are_leaves_and_modes_are_not(mixer, numbers):
    assert sorted(jax.tree.leaves(mixer)) == numbers


@mixers
@pytest.mark.parametrize("placeholder", [0, -1.0, None, "leaf"], ids=repr)
def test_placeholders_never_meet_a_check(mixer, placeholder):
    mapped = jax.tree.map(lambda _: placeholder, mixer)
    assert type(mapped) is type(mixer) and mapped.per == mixer.per


@pytest.mark.parametrize(
    "written, normal",
    [
        (CutMix(pairing="flip"), CutMix(pairing=Flip())),
        (CutMix(pairing="roll"), CutMix(pairing=Roll(1))),
        (MixUp(pairing="permutation"), MixUp(pairing=Permutation())),
        (CutMix(minmax=[0.2, 0.8]), CutMix(minmax=(0.2, 0.8))),
        (CutMix(minmax=[np.float64(0.25), np.float32(0.75)]), CutMix(minmax=(0.25, 0.75))),
        (RandomChoice([CutMix(), MixUp()]), RandomChoice((CutMix(), MixUp()))),
        (RandomChoice((MixUp(),), probs=[1.0]), RandomChoice((MixUp(),), probs=(1.0,))),
        (MixUp(np.float64(0.5)), MixUp(0.5)),
        (MixUp(np.float32(0.5)), MixUp(0.5)),
        (CutMix(alpha=np.int64(2)), CutMix(alpha=2)),
        (RandomApply(MixUp(), prob=np.float32(0.25)), RandomApply(MixUp(), prob=0.25)),
    ],
    ids=str,
)
def test_strings_lists_and_numpy_scalars_are_normalised(written, normal):
    assert written == normal and hash(written) == hash(normal)
    assert repr(written) == repr(normal) and "np." not in repr(written)
    same(written, normal)


def test_probs_round_trip_through_repr_whatever_they_sum_to():
    """Normalising twice must not change the last bit."""
    for probs in [(0.1, 0.2, 0.3), (1, 1, 1), (0.1, 0.1, 0.7), (3, 5, 1e-3)]:
        mixer = RandomChoice((CutMix(), MixUp(), MixUp(0.2)), probs=probs)
        assert eval(repr(mixer), NAMES) == mixer
        assert dataclasses.replace(mixer, per="batch") == RandomChoice(
            mixer.mixers, probs=probs, per="batch"
        )


@pytest.mark.parametrize(
    "call",
    [
        lambda: CutMix(1.0, "batch"),
        lambda: MixUp(1.0, "batch"),
        lambda: RandomChoice((CutMix(),), (1.0,), "batch"),
        lambda: RandomApply(CutMix(), 0.5, "batch"),
        lambda: CutMix(1.0, smoothing=0.1),
        lambda: MixUp(p=0.5),
        lambda: MixUp()(jax.random.key(0), np.ones(SHAPE), np.arange(8), 5),
        lambda: MixUp().plan(jax.random.key(0), SHAPE, -1),
    ],
    ids=["CutMix", "MixUp", "RandomChoice", "RandomApply", "stray", "typo", "call", "plan"],
)
def test_options_are_keyword_only_and_no_typo_is_swallowed(call):
    with pytest.raises(TypeError, match="argument"):
        call()


# Under the transformations ----------------------------------------------------------------------


@some_mixers
def test_static_traced_and_closed_over_mixers_draw_the_same(mixer):
    def plan(mixer, key):
        return mixer.plan(key, SHAPE)

    eager = plan(mixer, jax.random.key(1))
    same(eager, jax.jit(plan, static_argnums=0)(mixer, jax.random.key(1)))
    same(eager, jax.jit(plan)(mixer, jax.random.key(1)))
    same(eager, jax.jit(lambda key: plan(mixer, key))(jax.random.key(1)))


def test_equal_static_mixers_share_one_trace():
    traces = []

    def count(key, mixer):
        traces.append(mixer)
        return mixer.plan(key, SHAPE).lam

    draw = jax.jit(count, static_argnums=1)
    for mixer in (MixUp(0.2), MixUp(0.2, pairing="swap"), MixUp(np.float64(0.2), per="example")):
        draw(jax.random.key(0), mixer)
    assert len(traces) == 1
    draw(jax.random.key(0), MixUp(0.3))
    assert len(traces) == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda number: MixUp(alpha=number),
        lambda number: CutMix(alpha=number, per="batch"),
        lambda number: RandomApply(Halves(), prob=number),
        lambda number: RandomChoice((CutMix(), Halves(number)), probs=(number, 1 - number)),
        lambda number: Halves(strength=number),
    ],
    ids=["MixUp", "CutMix", "RandomApply", "RandomChoice", "own"],
)
def test_a_schedule_inside_jit_does_not_retrace(make):
    traces = []

    @jax.jit
    def inside(key, number):
        traces.append("inside")
        return make(number).plan(key, SHAPE).lam

    @jax.jit
    def argument(key, mixer):
        traces.append("argument")
        return mixer.plan(key, SHAPE).lam

    for number in (0.1, 0.25, 0.5, 0.75):
        traced = inside(jax.random.key(3), number)
        np.testing.assert_array_equal(argument(jax.random.key(3), make(number)), traced)
        np.testing.assert_array_equal(make(number).plan(jax.random.key(3), SHAPE).lam, traced)
    assert sorted(traces) == ["argument", "inside"]


def test_the_traced_number_decides():
    draw = jax.jit(lambda key, alpha: MixUp(alpha=alpha).plan(key, (10_000, 1)).lam)
    for alpha in (0.2, 1.0, 8.0):
        lam = np.asarray(draw(jax.random.key(4), alpha), np.float64)
        np.testing.assert_allclose(lam.var(), 1 / (4 * (2 * alpha + 1)), rtol=0.05)


def test_vmap_over_alpha():
    alphas = jnp.array([0.2, 1.0, 8.0], jnp.float32)
    keys = jax.random.split(jax.random.key(5), 3)
    plans = jax.vmap(lambda mixer, key: mixer.plan(key, SHAPE))(jax.vmap(MixUp)(alphas), keys)
    assert plans.lam.shape == (3, 8)
    inside = jax.vmap(lambda alpha, key: MixUp(alpha).plan(key, SHAPE))(
        alphas, jax.random.split(jax.random.key(5), 3)
    )
    same(plans, inside)
    for index, alpha in enumerate((0.2, 1.0, 8.0)):
        alone = MixUp(alpha).plan(jax.random.split(jax.random.key(5), 3)[index], SHAPE)
        np.testing.assert_allclose(plans.lam[index], alone.lam, rtol=1e-6)


def test_vmap_over_stacked_policies():
    policies = [RandomApply(RandomChoice((CutMix(a), MixUp(a))), prob=a) for a in (0.1, 0.9)]
    stacked = jax.tree.map(lambda *leaves: jnp.array(leaves, jnp.float32), *policies)
    keys = jax.random.split(jax.random.key(6), 2)
    draw = jax.vmap(lambda mixer, key: mixer.plan(key, SHAPE))
    plans = jax.eval_shape(draw, stacked, keys)
    assert plans.lam.shape == (2, 8) and plans.region.start.shape == (2, 8, 2)


def test_alpha_schedule_in_scan():
    def step(total, inputs):
        alpha, key = inputs
        return total, MixUp(alpha=alpha).plan(key, (4, 1)).lam

    alphas = jnp.linspace(0.1, 2, 5, dtype=jnp.float32)
    _, lams = jax.lax.scan(step, 0, (alphas, jax.random.split(jax.random.key(7), 5)))
    assert lams.shape == (5, 4) and len(np.unique(lams)) == 20


@some_mixers
def test_the_call_is_its_plan_applied(mixer):
    images = np.linspace(0, 1, int(np.prod(SHAPE)), dtype=np.float32).reshape(SHAPE)
    ids = np.arange(8) % 5
    mixed, labels = mixer(jax.random.key(9), images, ids, num_classes=5, smoothing=0.1)
    plan = mixer.plan(jax.random.key(9), SHAPE)
    np.testing.assert_array_equal(mixed, plan.images(images))
    np.testing.assert_array_equal(labels, plan.labels(ids, num_classes=5, smoothing=0.1))
    alone = mixer(jax.random.key(9), images)
    assert isinstance(alone, jax.Array)
    np.testing.assert_array_equal(alone, mixed)


# Granularity ------------------------------------------------------------------------------------


def draws(plan):
    """What was drawn for each row, as one tuple of numbers a row."""
    parts = [plan.lam]
    if isinstance(plan.region, Box):
        parts += [plan.region.start, plan.region.stop]
    if isinstance(plan.region, Mask):
        parts += [plan.region.painted]
    if plan.opacity is not None:
        parts += [plan.opacity]
    rows = [np.asarray(part, np.float64).reshape(len(part), -1) for part in parts]
    return [tuple(row) for row in np.concatenate(rows, 1)]


def granular(per):
    return [CutMix(per=per), MixUp(per=per), CutMix(minmax=(0.1, 0.9), per=per), Halves(per=per)]


@pytest.mark.parametrize("mixer", granular("example"), ids=str)
def test_per_example_every_row_draws_its_own(mixer):
    rows = draws(mixer.plan(jax.random.key(10), (15, 101, 103, 1)))
    assert len(set(rows)) == 15


@pytest.mark.parametrize("mixer", granular("batch"), ids=str)
def test_per_batch_all_rows_share_one_draw(mixer):
    first = draws(mixer.plan(jax.random.key(11), (16, 101, 103, 1)))
    assert len(set(first)) == 1
    assert draws(mixer.plan(jax.random.key(12), (16, 101, 103, 1)))[0] != first[0]


@pytest.mark.parametrize("pairing", ["swap", "roll", Flip(groups=4), Flip(groups=2), Flip()])
@pytest.mark.parametrize("mixer", granular(4), ids=str)
def test_per_n_the_rows_of_a_run_share_one_draw(mixer, pairing):
    mixer = dataclasses.replace(mixer, pairing=pairing)
    rows = draws(mixer.plan(jax.random.key(13), (16, 101, 103, 1)))
    runs = [rows[i : i + 4] for i in range(0, 16, 4)]
    assert len(set(rows)) == 4 and all(run == 4 * run[:1] for run in runs)


@pytest.mark.parametrize("pairing", ["swap", "roll", Flip(2), "permutation"], ids=str)
@pytest.mark.parametrize("outer", ["example", "batch", 2])
def test_mixers_that_share_draws_hold_mixers_that_do(outer, pairing):
    """The draw of the inner one is for the rows of the outer one's."""
    inner = RandomApply(MixUp(per=2, pairing=pairing), per=2)

    class Wrap(Mixer):
        mixer: Mixer = inner

        def draw(self, key, rows, spatial):
            return self.mixer.draw(key, rows, spatial)

    outer_mixer = Wrap(per=outer, pairing=pairing)
    if outer == "batch":  # One draw is no run of two.
        with pytest.raises(ValueError, match="per=2 must divide the batch size, got 1"):
            outer_mixer.plan(jax.random.key(3), (8, 8, 8, 3))
        return
    plan = outer_mixer.plan(jax.random.key(3), (8, 8, 8, 3))
    lam = np.asarray(plan.lam).reshape(-1, 2 if outer == "example" else 4)
    assert (lam == lam[:, :1]).all() and len(set(lam[:, 0])) > 1


def test_per_n_is_once_per_example_or_once_per_batch_at_its_ends():
    shape = (6, 31, 33, 1)
    for per, same_as in ((1, "example"), (6, "batch")):
        run, other = (CutMix(per=p).plan(jax.random.key(13), shape) for p in (per, same_as))
        np.testing.assert_array_equal(run.lam, other.lam)
    assert CutMix(per=np.int64(3)) == CutMix(per=3) and hash(CutMix(per=3)) != hash(CutMix())
    assert eval(repr(CutMix(per=3))) == CutMix(per=3)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: CutMix(per=0), "^CutMix: per must be at least 1, got 0"),
        (lambda: CutMix(per=True), '^CutMix: per must be one of "example".* how many rows share'),
        (lambda: CutMix(per=2.0), '^CutMix: per must be one of "example".* how many rows share'),
        (lambda: plan_of(CutMix(per=3)), "^CutMix: per=3 must divide the batch size, got 8"),
        (lambda: plan_of(RandomApply(MixUp(), per=5)), "^RandomApply: per=5 must divide.* 8"),
        (lambda: plan_of(RandomChoice((MixUp(per=5),))), "^MixUp: per=5 must divide .* 8"),
        (
            lambda: jaxmix.mixup(jax.random.key(0), np.ones(SHAPE), np.ones((8, 5)), per=3),
            "^mixup: per=3 must divide the batch size, got 8",
        ),
        (
            lambda: MixUp(per=4, pairing=Flip(groups=2)).plan(jax.random.key(0), (12, 4)),
            r"^MixUp: per=4 must divide the group size .*, got 6; use Flip\(groups=3\)",
        ),
    ],
)
def test_runs_fill_the_batch_and_the_groups_of_the_pairing(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def plan_of(mixer):
    return mixer.plan(jax.random.key(0), SHAPE)


@pytest.mark.parametrize("mixer", granular("pair"), ids=str)
@pytest.mark.parametrize("pairing", [Swap(), Flip(groups=2)], ids=repr)
def test_per_pair_the_two_of_a_pair_share_one_draw(mixer, pairing):
    mixer = dataclasses.replace(mixer, pairing=pairing)
    plan = mixer.plan(jax.random.key(13), (16, 101, 103, 1))
    rows, partner = draws(plan), np.asarray(plan.partner)
    assert len(set(rows)) == 8
    assert all(rows[i] == rows[partner[i]] for i in range(16))


@pytest.mark.parametrize("mixer", granular("pair"), ids=str)
def test_per_pair_the_row_of_an_odd_batch_that_is_alone_draws_its_own(mixer):
    """The last row of a swap, the middle one of a flip."""
    for pairing, alone in ((Swap(), 14), (Flip(), 7)):
        mixer = dataclasses.replace(mixer, pairing=pairing)
        plan = mixer.plan(jax.random.key(14), (15, 101, 103, 1))
        rows = draws(plan)
        assert rows == [rows[i] for i in plan.partner] and len(set(rows)) == 8
        assert rows.count(rows[alone]) == 1


CONSERVE = {
    **{box: functools.partial(CutMix, box=box) for box in ("paper", "timm", "contained")},
    "minmax": functools.partial(CutMix, minmax=(0.2, 0.8)),
    "axes": functools.partial(CutMix, axes=0),
    "grid": functools.partial(CutMix, grid=2),
    "mixup": MixUp,
    "fold": functools.partial(MixUp, fold=True),
    "choice": lambda **how: RandomChoice((CutMix(**how), MixUp(**how)), per=how["per"]),
    "applied": lambda **how: RandomApply(CutMix(**how), 0.5, per=how["per"]),
}


@pytest.mark.parametrize("rows, pairing", [(8, Swap()), (7, Swap()), (7, Flip()), (8, Flip(2))])
@pytest.mark.parametrize("name", CONSERVE)
def test_per_pair_conserves_labels_and_pixels(name, pairing, rows):
    """A draw for each example does not, nor does a pairing that is not mutual."""
    shape = (rows, 10, 12, 3)
    pixels = np.random.default_rng(0).permutation(math.prod(shape)).reshape(shape)
    ids = np.random.default_rng(1).integers(0, 4, rows)

    def changes(**how):
        """How far the sums of labels and pixels are off, and how many pixels are gone."""
        plan = CONSERVE[name](**how).plan(jax.random.key(3), shape)
        labels = np.asarray(plan.labels(ids, num_classes=4), np.float64).sum(0)
        mixed = np.asarray(plan.images(pixels.astype(np.float64)), np.float64)
        gone = set(pixels.reshape(-1)) - set(mixed.reshape(-1).astype(int))
        off = abs(mixed.sum() / pixels.sum() - 1)
        return abs(labels - np.bincount(ids, minlength=4)).max(), off, len(gone)

    labels, off, gone = changes(per="pair", pairing=pairing)
    assert labels < 1e-5 and off < 1e-6
    assert gone == 0 or name in ("mixup", "fold", "choice")
    for how in ({"per": "example", "pairing": pairing}, {"per": "example", "pairing": "roll"}):
        labels, off, _ = changes(**how)
        assert labels > 1e-3 and off > 1e-6


@pytest.mark.parametrize("per", ["example", "pair", "batch", 3])
def test_the_law_of_lam_does_not_depend_on_per(per):
    keys = jax.random.split(jax.random.key(15), 10_000)
    mixer = MixUp(0.4, per=per)
    lam = np.asarray(jax.jit(jax.vmap(lambda key: mixer.plan(key, (3, 1)).lam))(keys), np.float64)
    for row in range(3):
        low = lam[lam[:, row] < 0.5, row]
        assert abs(len(low) - 5000) < 4.5 * np.sqrt(2500)
        assert stats.kstest(low, lambda x: 2 * stats.beta(0.4, 0.4).cdf(x)).pvalue > RARE


# Independence -----------------------------------------------------------------------------------


def assert_uncorrelated(*columns):
    columns = np.stack([np.asarray(column, np.float64) for column in columns])
    found = np.abs(np.corrcoef(columns)[np.triu_indices(len(columns), 1)])
    assert found.max() < 4.5 / np.sqrt(columns.shape[1]), found


def test_lam_partner_and_neighbours_are_independent():
    plan = MixUp(pairing="permutation").plan(jax.random.key(16), (200_000, 1))
    lam, partner = np.asarray(plan.lam), np.asarray(plan.partner)
    assert_uncorrelated(lam, lam[partner], partner, np.abs(lam - 0.5), np.roll(lam, 1))
    assert len(np.unique(lam)) > 150_000


def test_size_place_and_partner_of_a_box_are_independent():
    mixer = CutMix(box="contained", pairing="permutation")
    plan = mixer.plan(jax.random.key(17), (200_000, 1001, 997, 1))
    start, stop = np.asarray(plan.region.start), np.asarray(plan.region.stop)
    room = np.array([1001, 997]) - (stop - start)
    place = start / np.maximum(room, 1)
    keep = (room > 100).all(1)
    lam, partner = np.asarray(plan.lam)[keep], np.asarray(plan.partner)[keep]
    assert_uncorrelated(lam, place[keep, 0], place[keep, 1], partner)
    assert_uncorrelated(*np.abs(place[keep].T - 0.5), np.abs(lam - lam.mean()))


def test_plans_of_two_keys_are_independent():
    first = MixUp().plan(jax.random.key(18), (200_000, 1)).lam
    second = MixUp().plan(jax.random.key(19), (200_000, 1)).lam
    folded = MixUp().plan(jax.random.fold_in(jax.random.key(18), 0), (200_000, 1)).lam
    assert_uncorrelated(first, second, folded)


# A user's own -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mixer",
    [Halves(strength=0.3), Halves(strength=0.3, per="pair"), Stripe(axis=1, per="batch")],
    ids=str,
)
def test_a_mixer_of_ones_own_obeys_the_painted_label(mixer):
    images = np.broadcast_to(np.eye(8, dtype=np.float32)[:, None, None], (8, 4, 12, 8))
    how = {"num_classes": 8, "channel_axis": -1}
    mixed, labels = mixer(jax.random.key(20), images, np.arange(8), **how)
    np.testing.assert_allclose(np.asarray(mixed).mean((1, 2)), labels, atol=1e-6)
    np.testing.assert_allclose(np.asarray(labels).sum(1), np.ones(8), atol=1e-6)


def test_halves_paints_the_left_half_faintly():
    plan = Halves(strength=0.3).plan(jax.random.key(21), SHAPE)
    assert isinstance(plan.region, Mask) and plan.region.painted.dtype == bool
    opacity = np.asarray(plan.opacity)
    assert (opacity < 0.3).all() and len(set(opacity)) == 8
    np.testing.assert_allclose(plan.lam, 1 - opacity / 2, atol=1e-6)
    weights = np.asarray(plan.weights(SHAPE))
    np.testing.assert_array_equal(weights[:, :, 6:], np.ones((8, 10, 6)))
    np.testing.assert_allclose(weights[:, 3, 2], 1 - opacity, atol=1e-6)


def test_a_static_field_is_a_mode():
    assert jax.tree.structure(Stripe(axis=0)) != jax.tree.structure(Stripe(axis=1))
    assert jax.tree.structure(Stripe(share=0.1)) == jax.tree.structure(Stripe(share=0.2))
    rows = Stripe(axis=0).plan(jax.random.key(22), SHAPE).region
    np.testing.assert_array_equal(rows.stop[:, 1], np.full(8, 12))
    columns = Stripe(axis=1).plan(jax.random.key(22), SHAPE).region
    np.testing.assert_array_equal(columns.stop[:, 0], np.full(8, 10))


def test_a_subclass_without_fields_and_one_with_its_own_decorator():
    class Whole(Mixer):
        def draw(self, key, rows, spatial):
            return None, None

    plan = Whole(pairing="roll").plan(jax.random.key(23), SHAPE)
    np.testing.assert_array_equal(plan.lam, np.zeros(8))
    np.testing.assert_array_equal(plan.partner, (np.arange(8) - 1) % 8)
    assert Whole() == Whole() and Whole() != Whole(per="batch")


def test_a_subclass_of_a_users_own_mixer():
    class Quarters(Halves):
        depth: float = 1.0

        def draw(self, key, rows, spatial):
            region, opacity = super().draw(key, rows, spatial)
            return region, opacity * self.depth

    plan = Quarters(strength=0.5, depth=0.1).plan(jax.random.key(24), SHAPE)
    assert (np.asarray(plan.opacity) < 0.05).all()
    assert sorted(jax.tree.leaves(Quarters())) == [0.5, 1.0]


def test_boxes_of_ones_own_are_clipped():
    class Outside(Mixer):
        def draw(self, key, rows, spatial):
            start = jnp.full((rows, 2), -5, jnp.int32)
            return Box(start, start + 7), None

    plan = Outside().plan(jax.random.key(25), SHAPE)
    np.testing.assert_array_equal(plan.region.start, np.zeros((8, 2)))
    np.testing.assert_allclose(plan.lam, np.full(8, 1 - 4 / 120), atol=1e-7)


WRONG_DRAWS = {
    "nothing": lambda rows, spatial: None,
    "a-region-alone": lambda rows, spatial: Mask(jnp.zeros((rows, *spatial), bool)),
    "three-things": lambda rows, spatial: (None, None, None),
    "an-array-for-a-region": lambda rows, spatial: (jnp.zeros((rows, *spatial), bool), None),
    "a-mask-of-other-extents": lambda rows, spatial: (Mask(jnp.zeros((rows, 5, 5), bool)), None),
    "a-mask-without-rows": lambda rows, spatial: (Mask(jnp.zeros(spatial, bool)), None),
    "an-int-mask": lambda rows, spatial: (Mask(jnp.zeros((rows, *spatial), jnp.int32)), None),
    "a-box-of-another-rank": lambda rows, spatial: (
        Box(jnp.zeros((rows, 3), jnp.int32), jnp.ones((rows, 3), jnp.int32)),
        None,
    ),
    "a-float-box": lambda rows, spatial: (Box(jnp.zeros((rows, 2)), jnp.ones((rows, 2))), None),
    "a-scalar-opacity": lambda rows, spatial: (None, jnp.float32(0.5)),
    "opacity-of-other-rows": lambda rows, spatial: (None, jnp.ones(rows + 1)),
}


@pytest.mark.parametrize("how", ["eager", "jit"])
@pytest.mark.parametrize("wrong", WRONG_DRAWS)
def test_a_wrong_draw_is_named(wrong, how):
    class Wrong(Mixer):
        def draw(self, key, rows, spatial):
            return WRONG_DRAWS[wrong](rows, spatial)

    def plan(key):
        return Wrong().plan(key, SHAPE)

    with pytest.raises((TypeError, ValueError)) as raised:
        (jax.jit(plan) if how == "jit" else plan)(jax.random.key(26))
    assert re.search(r"Wrong.*draw|draw.*Wrong", str(raised.value), re.DOTALL), raised.value


def test_a_mixer_without_draw_says_so():
    class Empty(Mixer):
        pass

    with pytest.raises((TypeError, NotImplementedError), match=r"draw"):
        Empty().plan(jax.random.key(27), SHAPE)


@mixers
@pytest.mark.parametrize("spatial", [(10, 12), (1, 1)], ids=str)
def test_every_mixer_draws_by_the_method_that_a_user_writes(mixer, spatial):
    """With the rows that it is asked for: one a draw, or the batch for a policy."""
    region, opacity = mixer.draw(jax.random.key(28), 8, spatial)
    for leaf in jax.tree.leaves((region, opacity)):
        assert leaf.shape[0] == 8
    assert region is None or isinstance(region, Box | Mask)
    again = mixer.draw(jax.random.key(28), 8, spatial)
    same((region, opacity), again)


@pytest.mark.parametrize("mixer", [m for m in MIXERS if m.per == "example"], ids=str)
def test_a_plan_is_made_of_what_draw_returns(mixer):
    if mixer.pairing.random:
        return  # Half of the key draws the pairing.
    region, opacity = mixer.draw(jax.random.key(29), 8, SHAPE[1:3])
    plan = mixer.plan(jax.random.key(29), SHAPE)
    by_hand = jaxmix.Plan.of(SHAPE, mixer.pairing, region=region, opacity=opacity)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(plan), jax.tree.leaves(by_hand))


def test_base_class_checks_a_users_modes():
    with pytest.raises(ValueError, match=r"Halves.*per"):
        Halves(per="image")
    with pytest.raises(ValueError, match=r"Halves.*pairing"):
        Halves(pairing="shuffle")
