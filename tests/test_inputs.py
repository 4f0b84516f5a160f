"""What people really hand in: it is mixed rightly, or refused in words whose remedy works."""

import array
import collections
import dataclasses
import enum
import re
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import fresh

import jaxmix
from jaxmix import (
    CutMix,
    Flip,
    Mixer,
    MixUp,
    Permutation,
    Plan,
    RandomApply,
    RandomChoice,
    recipes,
    symmetric_beta,
)

SHAPE = (8, 16, 12, 3)
IMAGES = np.random.default_rng(0).random(SHAPE, np.float32)
LABELS = np.arange(8) % 5


# Keys.


class _Held:
    """A key inside a variable, as Flax has them: JAX takes it for an array."""

    def __init__(self, value):
        self.value = value

    def __jax_array__(self):
        return self.value

    def __getitem__(self, index):
        return self.value


class _Stream:
    """A source of keys, called for each, with an attribute for whatever one asks: `nnx.Rngs`."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Stream()

    def __call__(self):
        return fresh()


def rbg():
    return jax.random.key_data(fresh(impl="rbg"))


def raw(*shape):
    return jax.random.key_data(jax.random.split(fresh(), shape))


CAST = r'key\.astype\("uint32"\)'
KEYS = {
    "a stream": (_Stream, r"call it.*rngs\(\)", lambda key: key()),
    "a stream's method": (lambda: _Stream().mix, r"call it.*rngs\.mix\(\)", lambda key: key()),
    "a function": (lambda: fresh, "call it", lambda key: key()),
    "a variable": (lambda: _Held(fresh()), r"key\[\.\.\.\]", lambda key: key[...]),
    "a raw variable": (lambda: _Held(raw(1)[0]), r"key\[\.\.\.\]", lambda key: key[...]),
    "keys": (lambda: jax.random.split(fresh(), 3), r"jax\.vmap", lambda key: key[0]),
    "a table": (lambda: jax.random.split(fresh(), (2, 3)), r"jax\.vmap", lambda key: key[0, 0]),
    "raw keys": (lambda: raw(3), r"jax\.vmap", lambda key: key[0]),
    "a raw table": (lambda: raw(2, 3), r"jax\.vmap", lambda key: key[0, 0]),
    "NumPy's": (lambda: np.ones((3, 2), np.uint32), r"jax\.vmap", lambda key: key[0]),
    "a key of rbg": (
        rbg,
        r"jax\.random\.wrap_key_data\(key, impl=\.\.\.\)",
        lambda key: jax.random.wrap_key_data(key, impl="rbg"),
    ),
    "int32": (lambda: np.ones(2, np.int32), CAST, lambda key: key.astype("uint32")),
    "int64": (lambda: np.ones(2, np.int64), CAST, lambda key: key.astype("uint32")),
    "a seed": (lambda: 7, r"jax\.random\.key\(0\)", jax.random.key),
}
TAKE_A_KEY = {
    "cutmix": lambda key: jaxmix.cutmix(key, IMAGES, LABELS, num_classes=5),
    "CutMix": lambda key: CutMix()(key, IMAGES),
    "RandomApply.plan": lambda key: RandomApply(MixUp()).plan(key, SHAPE),
    "symmetric_beta": lambda key: symmetric_beta(key, 1.0),
    "plot.gallery": lambda key: jaxmix.plot.gallery(IMAGES[:2], (CutMix(),), key),
}


@pytest.mark.parametrize("call", TAKE_A_KEY)
@pytest.mark.parametrize("kind", KEYS)
def test_what_is_no_key_comes_with_a_remedy_that_works(kind, call):
    make, remedy, apply = KEYS[kind]
    with pytest.raises(
        TypeError, match=rf"^{call}: key, the first argument, must be one PRNG key .*{remedy}"
    ):
        TAKE_A_KEY[call](make())
    TAKE_A_KEY[call](apply(make()))


def test_a_raw_key_is_one_of_the_prng_that_is_set():
    threefry = jax.random.key_data(fresh())
    with jax.default_prng_impl("rbg"):
        MixUp()(rbg(), IMAGES)
        with pytest.raises(TypeError, match="raw key of another PRNG"):
            MixUp()(threefry, IMAGES)
    MixUp()(threefry, IMAGES)


def test_the_keys_of_flax():
    nnx = pytest.importorskip("flax.nnx")
    rngs = nnx.Rngs(0, mix=1)
    for wrong in (rngs, rngs.mix, rngs.mix.key):
        with pytest.raises(TypeError, match="must be one PRNG key"):
            CutMix()(wrong, IMAGES)
    for right in (rngs(), rngs.mix(), rngs.mix.key[...]):
        CutMix()(right, IMAGES)


# Objects on which a check might fail.


class _ShapeIsAMethod:
    dtype = "float32"

    def shape(self):
        return (8,)


class _Broken:
    """Raises whatever it is asked."""

    def __getattr__(self, name):
        raise RuntimeError(f"no {name} here")

    def __repr__(self):
        raise RuntimeError("no repr here")


class _Vague:
    """A shape that is no tuple, as TensorFlow's."""

    shape, dtype = [8], "float32"


ARGUMENTS = {
    "key": lambda bad: CutMix()(bad, IMAGES),
    "images": lambda bad: CutMix()(fresh(), bad),
    "labels": lambda bad: CutMix()(fresh(), IMAGES, bad),
    "num_classes": lambda bad: CutMix()(fresh(), IMAGES, LABELS, num_classes=bad),
    "smoothing": lambda bad: CutMix()(fresh(), IMAGES, LABELS, num_classes=5, smoothing=bad),
    "channel_axis": lambda bad: CutMix()(fresh(), IMAGES, channel_axis=bad),
    "shape": lambda bad: CutMix().plan(fresh(), bad),
    "alpha": lambda bad: CutMix(bad),
    "per": lambda bad: CutMix(per=bad),
    "pairing": lambda bad: CutMix(pairing=bad),
    "box": lambda bad: CutMix(box=bad),
    "minmax": lambda bad: CutMix(minmax=bad),
    "axes": lambda bad: CutMix(axes=bad),
    "grid": lambda bad: CutMix(grid=bad),
    "fold": lambda bad: MixUp(fold=bad),
    "mixers": lambda bad: RandomChoice(bad),
    "each of mixers": lambda bad: RandomChoice((bad,)),
    "probs": lambda bad: RandomChoice((CutMix(),), bad),
    "each of probs": lambda bad: RandomChoice((CutMix(),), (bad,)),
    "mixer": lambda bad: RandomApply(bad),
    "prob": lambda bad: RandomApply(CutMix(), bad),
    "groups": Flip,
    "index": Permutation,
    "axis_name": jaxmix.Neighbour,
    "region": lambda bad: Plan.of(SHAPE, "swap", region=bad),
    "opacity": lambda bad: Plan.of(SHAPE, "swap", opacity=bad),
    "maps": lambda bad: MixUp().plan(fresh(), SHAPE).maps(bad),
    "logits": lambda bad: MixUp().plan(fresh(), SHAPE).accuracy(bad, LABELS),
    "valid": lambda bad: MixUp().plan(fresh(), SHAPE).only(bad),
    "donors": lambda bad: MixUp().plan(fresh(), SHAPE).images(IMAGES, donors=bad),
    "slices": lambda bad: MixUp().plan(fresh(), SHAPE)[bad],
    "mixup_alpha": recipes.timm,
    "mode": lambda bad: recipes.timm(mode=bad),
    "p": recipes.big_vision,
    "alpha of": lambda bad: symmetric_beta(fresh(), bad),
    "columns": lambda bad: jaxmix.plot.show(IMAGES, columns=bad),
}


@pytest.mark.parametrize("argument", ARGUMENTS)
@pytest.mark.parametrize("kind", [_Stream, _ShapeIsAMethod, _Broken, _Vague])
def test_no_check_fails_itself(kind, argument):
    with pytest.raises((TypeError, ValueError)) as raised:
        ARGUMENTS[argument](kind())
    name = argument.removesuffix(" of")
    assert re.match(rf"[\w.:\[\]]+: .*\b{name}\b", str(raised.value)), raised.value


# Arrays.


@dataclasses.dataclass
class _Batch:
    left: object
    right: object


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class _Views(_Batch):
    pass


@pytest.mark.parametrize("tree", [{"left": IMAGES, "right": 1 - IMAGES}, _Views(IMAGES, IMAGES)])
def test_a_pytree_of_images_is_mapped(tree):
    plan = CutMix().plan(fresh(), SHAPE)
    remedy = re.escape("jax.tree.map(plan.images, tree)")
    for call in (plan.images, lambda images: CutMix()(fresh(), images)):
        with pytest.raises(TypeError, match=f"images must be an array.*{remedy}"):
            call(tree)
    mixed = jax.tree.map(plan.images, tree)
    assert jax.tree.structure(mixed) == jax.tree.structure(tree)
    for one, other in zip(jax.tree.leaves(mixed), jax.tree.leaves(tree), strict=True):
        np.testing.assert_array_equal(one, plan.images(other))
        assert not np.array_equal(one, other)


@pytest.mark.parametrize("kind", [list, tuple])
def test_lists_become_arrays(kind):
    plan = CutMix().plan(fresh(), SHAPE)
    with pytest.raises(TypeError, match=r"images must be an array.*jnp\.asarray\(images\)"):
        plan.images(kind(IMAGES))
    np.testing.assert_array_equal(plan.images(jnp.asarray(kind(IMAGES))), plan.images(IMAGES))


TAKE_ARRAYS = {
    "images": lambda x: CutMix()(fresh(), np.resize(x, SHAPE).astype(x.dtype)),
    "Plan.images": lambda x: MixUp().plan(fresh(), (8,)).images(x),
    "donors": lambda x: MixUp().plan(fresh(), (8,)).images(np.ones(8, "f4"), donors=x),
    "labels": lambda x: MixUp()(fresh(), IMAGES, x, num_classes=5),
    "maps": lambda x: MixUp().plan(fresh(), (8,)).maps(x),
    "loss": lambda x: MixUp().plan(fresh(), (8,)).loss(lambda _, y: y["a"], None, {"a": x}),
    "opacity": lambda x: Plan.of(SHAPE, "swap", opacity=x),
    "index": Permutation,
    "valid": lambda x: MixUp().plan(fresh(), (8,)).only(x),
    "field": lambda x: Halves(strength=x),
}
FOREIGN = [">f4", ">i4", ">u2", "float128", "datetime64[s]", "object", "U3", "i4,f4"]


class Halves(Mixer):
    """Half of the partner, by default."""

    strength: object = 0.5

    def draw(self, key, rows, spatial):
        """The same opacity for each row."""
        return None, jnp.full(rows, self.strength)


@pytest.mark.parametrize("dtype", FOREIGN)
@pytest.mark.parametrize("call", TAKE_ARRAYS)
def test_dtypes_that_jax_does_not_have_are_named(call, dtype):
    x = np.zeros(8, dtype)
    with pytest.raises(TypeError) as raised:
        TAKE_ARRAYS[call](x)
    dtype = re.escape(str(x.dtype))
    named = rf"must have a dtype that JAX supports, got {dtype}\[.*cast it: \w+\.astype"
    assert re.search(named, str(raised.value)), raised.value


def test_a_foreign_byte_order_is_cast_to_the_same_dtype():
    plan = MixUp().plan(fresh(), (8,))
    ids = np.arange(8, dtype=">i2")
    with pytest.raises(TypeError, match=r'labels\.astype\("int16"\)'):
        plan.labels(ids, num_classes=8)
    np.testing.assert_array_equal(
        plan.labels(ids.astype("int16"), num_classes=8), plan.labels(np.arange(8), num_classes=8)
    )


# Labels.

HEADS = np.stack([np.arange(8) % 5, np.arange(8) % 3, np.arange(8) % 7], axis=1)
ODD = {
    "ids of several heads": (HEADS, 2),
    "-1 for a label that is missing": (np.array([[1, -1, 0]] * 8), -1),
    "counts": (np.array([[2, 0, 3]] * 8, np.uint8), 2),
    "percent": (np.array([[100, 0]] * 8, np.int16), 100),
}
TAKE_LABELS = {
    "mixup": lambda labels, **how: jaxmix.mixup(fresh(), IMAGES, labels, **how)[1],
    "CutMix": lambda labels, **how: CutMix()(fresh(), IMAGES, labels, **how)[1],
    "Plan.labels": lambda labels, **how: MixUp().plan(fresh(), SHAPE).labels(labels, **how),
    "donors": lambda labels, **how: (
        MixUp().plan(fresh(), SHAPE).labels(np.eye(8, labels.shape[1]), donors=labels, **how)
    ),
}


@pytest.mark.parametrize("given", ["nothing", "K", "more"])
@pytest.mark.parametrize("call", TAKE_LABELS)
@pytest.mark.parametrize("kind", ODD)
def test_numbers_that_are_no_dense_labels_are_not_blended(kind, call, given):
    labels, value = ODD[kind]
    how = {"nothing": None, "K": labels.shape[1], "more": 9}[given]
    name = "donors" if call == "donors" else "labels"
    if call == "donors" and given == "more":
        labels, name = np.eye(8, 3), "labels"  # Which are checked first.
        with pytest.raises(ValueError, match=rf"plan\.labels\({name}\[:, i\], num_classes=\.\.\."):
            TAKE_LABELS[call](labels, num_classes=how)
        return
    with pytest.raises(ValueError) as raised:
        TAKE_LABELS[call](labels, num_classes=how)
    for part in (
        f"got {value};",
        f"plan.labels({name}[:, i], num_classes=...)",
        f'{name}.astype("float32")',
    ):
        assert part in str(raised.value), raised.value


def test_both_remedies_for_columns_of_numbers_work():
    plan = MixUp().plan(fresh(), SHAPE)
    for i in range(3):
        head = plan.labels(HEADS[:, i], num_classes=7)
        np.testing.assert_allclose(head.sum(1), np.ones(8), atol=1e-6)
    lam = np.asarray(plan.lam)[:, None]
    numbers = lam * HEADS + (1 - lam) * HEADS[np.asarray(plan.partner)]
    np.testing.assert_allclose(plan.labels(HEADS.astype("float32")), numbers, atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "bool", "float32"])
def test_multi_hot_labels_of_zeros_and_ones_are_mixed(dtype):
    plan, hot = MixUp().plan(fresh(), SHAPE), (HEADS > 1).astype(dtype)
    lam = np.asarray(plan.lam)[:, None]
    mixed = lam * hot + (1 - lam) * hot[np.asarray(plan.partner)]
    np.testing.assert_allclose(plan.labels(hot), mixed, atol=1e-6)


def test_integers_of_a_jax_array_are_not_read_back():
    np.testing.assert_array_equal(
        MixUp().plan(fresh(), SHAPE).labels(jnp.asarray(HEADS)),
        MixUp().plan(fresh(), SHAPE).labels(HEADS.astype("float32")),
    )


@pytest.mark.parametrize("rank", [3, 4])
@pytest.mark.parametrize("length", [16, 3])  # 3 looks like channels.
@pytest.mark.parametrize("mixer", [CutMix(axes=0), MixUp()], ids=str)
def test_labels_of_frames_go_where_the_error_says(mixer, length, rank):
    sound = np.ones((8, length, 12, 1)[:rank], np.float32)
    frames = np.random.default_rng(1).integers(0, 2, (8, length, 5))
    with pytest.raises(TypeError) as raised:
        mixer(fresh(), sound, frames, channel_axis=-1)
    whole, at = re.search(
        r"(plan\.images\(labels.*\)) for images \[B, T, C\], .* (plan\.at\(.*\[:, :, 0\])",
        str(raised.value),
    ).groups()
    plan = mixer.plan(fresh(), sound.shape, channel_axis=-1)
    names = dict(zip("BTK", frames.shape, strict=True))
    mixed = eval(whole if rank == 3 else at, {"plan": plan, "labels": frames, **names})
    weights = np.asarray(plan.weights(sound.shape, channel_axis=-1))
    weights = weights[:, :, None] if rank == 3 else weights[:, :, :1]
    expected = weights * frames + (1 - weights) * frames[np.asarray(plan.partner)]
    np.testing.assert_allclose(mixed, expected, atol=1e-6)


# Classes in place of objects.


@pytest.mark.parametrize(
    "call, remedy",
    [
        (lambda: RandomApply(CutMix), "CutMix()"),
        (lambda: RandomChoice([CutMix(), MixUp]), "MixUp()"),
        (lambda: RandomChoice((Halves,)), "Halves()"),
        (lambda: jaxmix.testing.check(Halves), "Halves()"),
        (lambda: jaxmix.plot.gallery(IMAGES, [CutMix], fresh()), "CutMix()"),
        (lambda: CutMix(pairing=Flip), "Flip()"),
        (lambda: jaxmix.Neighbour("rows", Flip), "Flip()"),
        (lambda: Plan.of(SHAPE, jaxmix.Roll), "Roll()"),
    ],
)
def test_a_class_in_place_of_an_object_misses_its_parentheses(call, remedy):
    with pytest.raises(TypeError, match=re.escape(f"add parentheses: {remedy}")):
        call()


# Scalars.


@pytest.mark.parametrize("kind", [np.longdouble, np.float16, np.float64])
def test_scalars_of_numpy_are_numbers(kind):
    half = kind(0.5)
    assert CutMix(half) == CutMix(0.5) and RandomApply(MixUp(), half) == RandomApply(MixUp(), 0.5)
    assert RandomChoice((CutMix(), MixUp()), (half, 1)).probs == (0.5, 1.0)
    assert Plan.of(SHAPE, "swap", opacity=half).lam[0] == 0.5
    assert CutMix(half)(fresh(), IMAGES).shape == SHAPE


@pytest.mark.parametrize(
    "call",
    [
        lambda keys: CutMix()(fresh(), IMAGES, keys[0]),
        lambda keys: CutMix()(fresh(), IMAGES, keys),
        lambda keys: CutMix(keys),
        lambda keys: RandomApply(MixUp(), keys),
        lambda keys: RandomChoice((CutMix(), MixUp()), keys),
        lambda keys: RandomChoice((CutMix(), MixUp()), keys[0]),
        lambda keys: CutMix()(fresh(), IMAGES, LABELS, num_classes=5, smoothing=keys),
        lambda keys: CutMix(minmax=(keys, 1.0)),
        lambda keys: Plan.of(SHAPE, "swap", opacity=keys),
        lambda keys: MixUp().plan(fresh(), SHAPE).relabel(keys),
        lambda keys: MixUp().plan(fresh(), SHAPE).accuracy(keys[:, None], LABELS),
        lambda keys: MixUp()(fresh(), keys),
    ],
)
def test_keys_are_no_numbers_whatever_their_shape(call):
    with pytest.raises(TypeError, match=r"(hold real numbers|cannot be blended), got key"):
        call(jax.random.split(fresh(), 8))


def test_the_dtype_of_symmetric_beta_is_checked_whatever_it_is():
    for dtype in ("abc", int, object(), "int32"):
        with pytest.raises(TypeError, match=r"^symmetric_beta: dtype must be a floating dtype"):
            symmetric_beta(fresh(), 1.0, (2,), dtype)


@pytest.mark.parametrize("pairing", ["swap", "flip", "roll", Permutation(np.arange(2))], ids=str)
def test_rows_are_taken_from_arrays(pairing):
    take = CutMix(pairing=pairing).pairing.take
    with pytest.raises(TypeError, match=r"^\w+\.take: x must be an array, got float"):
        take(3.0)
    with pytest.raises(ValueError, match=r"^\w+\.take: x must have a batch axis"):
        take(jnp.float32(3))


# Sequences.

USER = collections.UserList
SEQUENCES = {
    "minmax": (lambda of: CutMix(minmax=of(0.25, 0.75)), CutMix(minmax=(0.25, 0.75))),
    "axes": (lambda of: CutMix(axes=of(0, 1)), CutMix(axes=(0, 1))),
    "grid": (lambda of: CutMix(grid=of(4, 2)), CutMix(grid=(4, 2))),
    "probs": (
        lambda of: RandomChoice((CutMix(), MixUp()), of(0.25, 0.75)),
        RandomChoice((CutMix(), MixUp()), (0.25, 0.75)),
    ),
    "timm": (
        lambda of: recipes.timm(0, cutmix_minmax=of(0.25, 0.75), axes=(0, 1)),
        recipes.timm(0, cutmix_minmax=(0.25, 0.75), axes=(0, 1)),
    ),
}
OF = {
    "list": lambda *items: list(items),
    "UserList": lambda *items: USER(items),
    "deque": lambda *items: collections.deque(items),
    "NumPy": lambda *items: np.array(items),
    "float32": lambda *items: np.array(items).astype("float32" if items[1] == 0.75 else "int16"),
    "array": lambda *items: array.array("d" if items[1] == 0.75 else "i", items),
}


@pytest.mark.parametrize("of", OF)
@pytest.mark.parametrize("name", SEQUENCES)
def test_any_sequence_and_numpy_array_is_taken(name, of):
    make, expected = SEQUENCES[name]
    made = make(OF[of])
    assert made == expected and hash(made) == hash(expected) and repr(made) == repr(expected)


def test_the_sequences_of_configurations():
    """Ranges, and those that hold other things than numbers."""
    assert CutMix(axes=range(2)) == CutMix(axes=(0, 1))
    assert RandomChoice(USER([CutMix(), MixUp()])) == RandomChoice((CutMix(), MixUp()))
    for index in (USER([1, 0, 3, 2]), range(3, -1, -1), [1, 0], np.array([1, 0]), (1, 0)):
        np.testing.assert_array_equal(Permutation(index).index, list(index))
    for shape in (USER(SHAPE), list(SHAPE), np.zeros(SHAPE).shape, [np.int64(n) for n in SHAPE]):
        assert CutMix().plan(fresh(), shape).spatial == SHAPE[1:3]
    names = USER(["cat", "dog", "cow", "fox", "owl"])
    for given in (names, np.array(list(names)), tuple(names)):
        figure = jaxmix.plot.show(IMAGES, LABELS, class_names=given)
        assert figure.axes[1].get_title() == "dog: 100 %"
    figure = jaxmix.plot.gallery(IMAGES[:2], USER([CutMix(), MixUp()]), fresh())
    assert len(figure.axes) == 6


@pytest.mark.parametrize("bad", [5, {"a", "b"}, "ab", {"a": 1}], ids=type)
def test_names_of_classes_are_a_sequence(bad):
    with pytest.raises(TypeError, match=r"^plot\.show: class_names must be a sequence"):
        jaxmix.plot.show(IMAGES, LABELS, class_names=bad)


def test_an_index_of_no_rows_and_a_ragged_one():
    assert Permutation([]).take(np.zeros((0, 3))).shape == (0, 3)
    for bad in ([[0], [1, 2]], [0.5, 1], ["a"]):
        with pytest.raises(TypeError, match=r"^Permutation: each of index must be a static"):
            Permutation(bad)


@pytest.mark.parametrize("grid", [[4, 2], np.array([4, 2]), np.int64(2)], ids=repr)
def test_the_grid_of_a_box_is_a_mode_whatever_it_was(grid):
    box = jaxmix.Box(jnp.zeros((8, 2), int), jnp.full((8, 2), 4), grid)
    for _ in range(2):
        jax.jit(lambda box: box.start)(box)
    assert isinstance(hash(jax.tree.structure(box)), int)


def test_a_named_tuple_in_a_field_of_ones_own_stays_one():
    Point = collections.namedtuple("Point", "x y")
    assert Halves(strength=Point(0.5, 0.25)).strength.y == 0.25
    assert Halves(strength=USER([0.5])).strength == (0.5,)


@pytest.mark.parametrize("bad", ["01", b"01", {0: 1}, {0, 1}, iter([0, 1])], ids=type)
def test_what_is_no_sequence_is_refused(bad):
    for call in (
        lambda: CutMix(axes=bad),
        lambda: CutMix(minmax=bad),
        lambda: RandomChoice(bad),
        lambda: CutMix().plan(fresh(), bad),
    ):
        with pytest.raises((TypeError, ValueError), match=r"^(CutMix|RandomChoice)[\w.]*: "):
            call()


# Mixers of one's own.


class _Direction(enum.Enum):
    DOWN = 1


LEAFLESS = {
    "str": "v",
    "bytes": b"v",
    "enum": _Direction.DOWN,
    "function": jnp.sin,
    "type": int,
    "object": object(),
    "a str in a tree": {"a": [1.0, "v"]},
    "NumPy's str": np.str_("v"),
    "dtype": np.dtype("float32"),
    "longdouble": np.longdouble(0.5),
}


@pytest.mark.parametrize("kind", LEAFLESS)
def test_a_field_that_can_be_no_leaf_says_how_it_is_marked(kind):
    class Mode(Mixer):
        mode: typing.Any = LEAFLESS[kind] if kind != "a str in a tree" else 0.0

        def draw(self, key, rows, spatial):
            return None, jnp.zeros(rows)

    class Marked(Mode):
        mode: typing.Any = dataclasses.field(default="v", metadata={"static": True})

    remedy = re.escape('dataclasses.field(metadata={"static": True})')
    if kind == "longdouble":
        with pytest.raises(
            TypeError, match=r"^Mode: mode must have a dtype that JAX supports, got float128"
        ):
            Mode(mode=LEAFLESS[kind])
        return
    with pytest.raises(TypeError, match=rf"^Mode: the field mode must hold numbers.*{remedy}"):
        Mode(mode=LEAFLESS[kind])
    if kind != "a str in a tree":  # Which cannot be hashed, as modes are.
        mixed = Marked(mode=LEAFLESS[kind])(fresh(), IMAGES)
        np.testing.assert_array_equal(mixed, IMAGES)


@pytest.mark.parametrize(
    "leaf",
    [
        1,
        True,
        0.5,
        1j,
        None,
        np.float32(1),
        np.ones(3),
        jnp.ones(3),
        fresh(),
        (1, {"a": 2.0}),
        CutMix(),
    ],
    ids=str,
)
def test_numbers_arrays_and_pytrees_of_them_are_leaves(leaf):
    kept = jax.tree.leaves(Halves(strength=leaf).strength)
    for one, other in zip(kept, jax.tree.leaves(leaf), strict=True):
        assert one is other or np.array_equal(one, other)


def forgetful(**options):
    class Forgets(Mixer):
        strength: float = 0.5

        def __post_init__(self):
            assert 0 < self.strength < 1

        def draw(self, key, rows, spatial):
            return None, jnp.full(rows, self.strength)

    return Forgets(**options)


@pytest.mark.parametrize("options", [{}, {"pairing": Flip()}, {"pairing": "flip"}], ids=str)
def test_a_forgotten_super_is_told(options):
    with pytest.raises(TypeError, match=r"^Forgets: .*super\(\)\.__post_init__\(\)"):
        forgetful(**options)


def test_checks_of_ones_own_come_before_or_after_those_of_the_base_class():
    class Parent(Mixer):
        strength: float = 0.5

        def __post_init__(self):
            super().__post_init__()
            if not isinstance(self.pairing, jaxmix.Swap):
                raise ValueError("Swap alone")

        def draw(self, key, rows, spatial):
            return None, jnp.full(rows, self.strength)

    class Child(Parent):
        factor: float = 1.0

        def __post_init__(self):
            if self.factor < 0:
                raise ValueError("a factor is positive")
            super().__post_init__()

    class Grandchild(Parent):
        def __post_init__(self):
            pass

    class Mixin:
        def __post_init__(self):
            pass

    class Mixed(Mixin, Parent):
        pass

    class Heir(Grandchild):
        def __post_init__(self):
            super().__post_init__()

    Child()(fresh(), IMAGES)
    with pytest.raises(ValueError, match="Swap alone"):
        Child(pairing="flip")
    with pytest.raises(ValueError, match="positive"):
        Child(factor=-1.0)
    for cls, forgot in ((Grandchild, "Grandchild"), (Mixed, "Mixin"), (Heir, "Grandchild")):
        wanted = rf"^{cls.__name__}: .*{forgot}\.__post_init__ must call super\(\)"
        with pytest.raises(TypeError, match=wanted):
            cls()
    jax.tree.map(lambda leaf: object(), Child())  # What JAX builds meets no check.


@pytest.mark.parametrize(
    "options", [{}, {"kw_only": True}, {"repr": False}, {"eq": False}], ids=str
)
def test_a_subclass_may_be_decorated_once_more(options):
    @dataclasses.dataclass(frozen=True, **options)
    class Stripes(Mixer):
        strength: float = 0.5
        mode: str = dataclasses.field(default="v", metadata={"static": True})
        content: typing.Any = dataclasses.field(default=None, metadata={"rows": True})

        def draw(self, key, rows, spatial):
            assert self.mode in "vh"
            return None, jnp.full(rows, self.strength)

    mixer = Stripes(0.25, mode="h")
    assert repr(mixer) == "Stripes(strength=0.25, mode='h')"
    assert mixer == eval(repr(mixer)) and hash(mixer) == hash(eval(repr(mixer)))
    assert jax.tree.leaves(mixer) == [0.25]
    lam = jax.jit(lambda mixer: mixer.plan(fresh(), SHAPE).lam)(
        dataclasses.replace(mixer, mode="v")
    )
    np.testing.assert_array_equal(lam, np.full(8, 0.75, np.float32))
    with pytest.raises(ValueError, match="content"):
        Stripes(content=IMAGES, per="batch")
    with pytest.raises(dataclasses.FrozenInstanceError):
        mixer.strength = 1.0


@pytest.mark.parametrize("mixer", [CutMix(), MixUp(), RandomApply(CutMix()), Halves()], ids=str)
def test_every_mixer_is_frozen(mixer):
    for name in ("per", "pairing", "alpha", "strength", "something"):
        with pytest.raises(dataclasses.FrozenInstanceError, match=name):
            setattr(mixer, name, 1)
        with pytest.raises(dataclasses.FrozenInstanceError, match=name):
            delattr(mixer, name)


# Rebuilding inside of jit.


def test_a_policy_is_rebuilt_inside_of_jit():
    pairing = Permutation(np.arange(8)[::-1].copy())
    policy = RandomChoice((CutMix(pairing=pairing), MixUp(pairing=pairing)))
    nested = RandomApply(policy, 0.5)
    probs = (0.2, 0.8)

    @jax.jit
    def rebuilt(policy, nested):
        inner = dataclasses.replace(policy, probs=probs)
        outer = dataclasses.replace(nested, mixer=inner, prob=1.0)
        return inner(fresh(), IMAGES), outer(fresh(), IMAGES)

    plain, always = rebuilt(policy, nested)
    expected = dataclasses.replace(policy, probs=probs)
    np.testing.assert_array_equal(plain, expected(fresh(), IMAGES))
    np.testing.assert_array_equal(always, RandomApply(expected, 1.0)(fresh(), IMAGES))


def test_pairings_that_are_known_to_differ_are_refused_inside_of_jit_too():
    other = Permutation(np.roll(np.arange(8), 1))
    long = Permutation(jnp.arange(9))

    @jax.jit
    def choice(first, second):
        return RandomChoice((CutMix(pairing=first), MixUp(pairing=second))).probs

    for first, second in ((Flip(), other), (other, long)):
        with pytest.raises(ValueError, match="all mixers must have the same pairing"):
            choice(first, second)
    with pytest.raises(ValueError, match="all mixers must have the same pairing"):
        jax.jit(lambda: RandomChoice((CutMix(pairing=Flip()), MixUp(pairing=other))).probs)()


# Mixers of one's own that are not quite right.


def test_policies_refuse_mixers_that_override_plan():
    """They call `draw` alone, so the labels of such a mixer would be lost."""

    class Relabelled(MixUp):
        def plan(self, key, shape, **how):
            return super().plan(key, shape, **how).relabel(jnp.ones(shape[0]))

    assert (Relabelled().plan(fresh(), (4, 8, 8, 3)).lam == 1).all()
    for policy in (lambda m: RandomChoice((MixUp(), m)), lambda m: RandomApply(m)):
        with pytest.raises(TypeError, match=r"define draw, not plan.*Relabelled.*plan\.relabel"):
            policy(Relabelled())


@pytest.mark.parametrize("value", [np.ones(2), jnp.float32(0.5)], ids=["NumPy", "JAX"])
def test_modes_are_no_arrays(value):
    class Mode(MixUp):
        strength: typing.Any = dataclasses.field(default=0.5, metadata={"static": True})

    with pytest.raises(TypeError, match=r"^Mode: the field strength is static, .*array, got float"):
        Mode(strength=value)
    with pytest.raises(TypeError, match=r"the field strength is static"):
        jax.jit(lambda x: Mode(strength=x).plan(fresh(), (4, 8, 8, 3)).lam)(0.5)


def test_modes_are_anything_else_that_can_be_hashed():
    class Mode(MixUp):
        mode: typing.Any = dataclasses.field(default=None, metadata={"static": True})

    for mode in (
        jax.ShapeDtypeStruct((2,), "float32"),
        np.dtype("int8"),
        jnp.float32,
        (1, "a"),
        len,
    ):
        assert Mode(mode=mode).plan(fresh(), (4, 8, 8, 3)).batch == 4


@pytest.mark.parametrize("use", ["size", "range", "if", "NumPy", "slice"])
def test_modes_that_are_not_marked_are_told_to_be(use):
    uses = {
        "size": lambda n: jnp.zeros((n,)),
        "range": lambda n: list(range(n)),
        "if": lambda n: 1 if n else 2,
        "NumPy": lambda n: np.zeros(n),
        "slice": lambda n: jnp.arange(8)[:n],
    }

    class Count(Mixer):
        count: int = 3

        def draw(self, key, rows, spatial):
            uses[use](self.count)
            return None, jnp.full((rows,), 0.5)

    policy = RandomApply(RandomChoice((Count(), MixUp())))
    for mixer in (Count(), policy):
        with pytest.raises((TypeError, IndexError)) as raised:
            mixer(fresh(), jnp.zeros((4, 8, 8, 3)))
        assert len([note for note in raised.value.__notes__ if "traced" in note]) == 1
    (note,) = raised.value.__notes__[:1]
    assert note.startswith("Count.draw: draws and fields are traced; mark an option as static"), (
        note
    )
    assert 'metadata={"static": True}' in note


def test_errors_of_ones_own_in_draw_have_no_note():
    class Wrong(Mixer):
        def draw(self, key, rows, spatial):
            raise TypeError("mine")

    with pytest.raises(TypeError, match="mine") as raised:
        Wrong()(fresh(), jnp.zeros((4, 8, 8, 3)))
    assert not any("traced" in note for note in getattr(raised.value, "__notes__", []))


@pytest.mark.parametrize("opacity", [0.25, 1, np.float32(0.25), jnp.float32(0.25)], ids=type)
def test_one_opacity_for_all_rows_comes_with_the_remedy(opacity):
    class Quarter(Mixer):
        def draw(self, key, rows, spatial):
            return None, opacity

    wanted = (
        r"Quarter\.draw: opacity must have the shape \(4,\), got .*jnp\.full\(\(rows,\), opacity\)"
    )
    with pytest.raises(ValueError, match=wanted):
        Quarter()(fresh(), jnp.zeros((4, 8, 8, 3)))


# Remedies that fit.


def test_remedies_fit_what_came():
    images, plan = jnp.zeros((4, 8, 8, 3)), MixUp().plan(fresh(), (4, 8, 8, 3))
    cases = [
        (lambda: plan.loss(images, jnp.arange(4), len), "loss_fn, the first argument, must be a"),
        (lambda: plan.images(None), "got NoneType; is an argument or a field missing"),
        (lambda: MixUp()(fresh(), {"image": images}), r"plan\.images.*plan\.labels.*plan\.maps"),
        (lambda: jax.jit(MixUp().plan)(fresh(), images.shape), "a static argument"),
        (lambda: MixUp()(fresh()[None], images), "one of the keys, or use jax.vmap"),
        (lambda: RandomChoice(CutMix(), MixUp()), r"as a tuple, as in \(CutMix\(\), MixUp\(\)\)"),
        (lambda: plan.labels(jnp.ones(4), num_classes=3), "cast ids to an integer dtype"),
    ]
    for call, message in cases:
        with pytest.raises(TypeError, match=message):
            call()
    with pytest.raises(ValueError, match=r"mixup_alpha must be .*; 0 switches it off"):
        jaxmix.recipes.timm(mixup_alpha=-1.0)
    with pytest.raises(
        ValueError, match=r"x must have batch size 5, like the index, got int32\[2\]"
    ):
        jaxmix.Permutation([4, 0, 1, 2, 3]).take(jnp.arange(2))
