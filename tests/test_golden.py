"""The same augmentation: given the draws of timm, torchvision and Keras, what these made of them.

golden/make_golden.py ran those libraries and wrote down what they drew. Here jaxmix is handed the
same draws in place of its own, and everything else is its public way: recipe, plan, images, labels.
Boxes, lambdas and opaque pixels have to be equal, blends and labels within 1 ulp.
"""

import contextlib
import json
import pathlib
from unittest import mock

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import jaxmix
from jaxmix import Box, CutMix, Permutation, Plan, _region, recipes

FOLDER = pathlib.Path(__file__).parent / "golden"
CLASSES, SMOOTHING = 5, 0.1


class Cases(dict):
    """The cases of one file: name -> {what: array}."""

    def __init__(self, library):
        """Reads them."""
        with np.load(FOLDER / f"{library}.npz") as file:
            for path in file.files:
                case, _, what = path.partition("/")
                if what:
                    self.setdefault(case, {})[what] = file[path]
            self.version = str(file["version"])


ORIGINALS, TIMM, TORCHVISION, KERAS = map(Cases, ("originals", "timm", "torchvision", "keras"))


def named(cases, *kinds):
    """The names of the cases of some kinds."""
    return [name for name in cases if name.partition("-")[0] in kinds]


def originals(name):
    """Images [B, C, H, W] and class ids of a case."""
    kind = "uint8" if name.startswith("uint8") else "float32"
    case = ORIGINALS[f"{kind}-{name.rpartition('-')[2]}"]
    return jnp.asarray(case["images"]), jnp.asarray(case["ids"], jnp.int32)


def inside(place, count):
    """A uniform that falls on number `place` of `count`."""
    return (np.asarray(place) + 0.5) / np.asarray(count)


@contextlib.contextmanager
def drawing(uniforms, lams):
    """Hands out given numbers in place of random ones, in order, to code that is not compiled."""
    uniforms, lams = (iter([jnp.asarray(x, jnp.float32) for x in xs]) for xs in (uniforms, lams))

    def uniform(key, rows, count):
        drawn = next(uniforms)
        assert drawn.shape == (rows, count)
        return drawn

    with (
        jax.disable_jit(),
        mock.patch("jaxmix._mixers.uniforms", uniform),
        mock.patch("jaxmix._policies.uniforms", uniform),
        mock.patch("jaxmix._mixers.from_uniforms", lambda radius, angle, alpha: next(lams)),
    ):
        yield
    assert next(uniforms, None) is None and next(lams, None) is None, "not all of it was drawn"


def assert_mixed(case, plan, images, labels, *, opaque, channel_axis=1, **options):
    """Images and labels are the library's: opaque pixels and integers exactly."""
    mixed = np.asarray(plan.images(images, channel_axis=channel_axis))
    assert mixed.dtype == case["mixed"].dtype and mixed.shape == case["mixed"].shape
    if opaque or mixed.dtype == np.uint8:
        np.testing.assert_array_equal(mixed, case["mixed"])
    else:
        assert reference.ulps(mixed, case["mixed"]).max() <= 1
    soft = np.asarray(plan.labels(labels, **options))
    assert soft.dtype == case["labels"].dtype == np.float32
    # For a whole batch timm and torchvision take 1 - lam in float64, jaxmix in float32.
    np.testing.assert_allclose(soft, case["labels"], rtol=0, atol=2**-23)


# timm -------------------------------------------------------------------------------------------


def timm_draws(case, options, spatial, rows):
    """The numbers that lead jaxmix to timm's draws, one array for each draw of `recipes.timm`.

    In pair mode the second half of the batch draws too, and is not listened to.
    """
    mixup_on = options.get("mixup_alpha", 1.0) > 0
    minmax = options.get("cutmix_minmax")
    cuts = minmax is not None or options.get("cutmix_alpha", 0.0) > 0
    uniforms, lams = [], []
    if options.get("prob", 1.0) != 1:
        uniforms.append(case["apply"][:, None])
    if mixup_on and cuts:
        uniforms.append(1 - case["switch"][:, None])  # jaxmix counts from MixUp up.
    if mixup_on:
        uniforms.append(np.full((len(case["apply"]), 2), 0.5))
        lams.append(case["mixup_lam"])
    if minmax is not None:
        sides, starts = case["places"][:, :2], case["places"][:, 2:]
        low, high = (np.array([int(n * bound) for n in spatial]) for bound in minmax)
        starts = inside(starts, np.array(spatial) - sides + 1)
        uniforms.append(np.hstack([inside(sides - low, high - low), starts]))
    elif cuts:
        lam = np.full_like(case["places"], 0.5, float)
        uniforms.append(np.hstack([lam, inside(case["places"], spatial)]))
        lams.append(case["cutmix_lam"])
    if options["mode"] == "pair":
        unheard = np.full((rows - len(uniforms[0]), 1), 0.1)
        uniforms = [np.concatenate([x, unheard.repeat(x.shape[1], 1)]) for x in uniforms]
        lams = [np.concatenate([lam, unheard[:, 0]]) for lam in lams]
    return uniforms, lams


def by_row(values, mode, rows):
    """What timm drew for a batch or for pairs, for each row."""
    values = np.asarray(values)
    if mode == "pair":
        return np.concatenate([values, values[::-1]])
    return np.broadcast_to(values, (rows, *values.shape[1:]))


@pytest.mark.parametrize("name", named(TIMM, "cutmix", "mixup", "minmax", "both", "uint8", "multi"))
def test_timm(name):
    case = TIMM[name]
    options = json.loads(str(case["options"]))
    images, labels = originals(name)
    rows, _, *spatial = images.shape
    with drawing(*timm_draws(case, options, spatial, rows)):
        mixer = recipes.timm(**options)
        plan = mixer.plan(jax.random.key(0), images.shape, channel_axis=1)
    helpers.assert_same(plan.lam, case["lam"], ulps=1)
    applied, cut, box = (by_row(case[k], options["mode"], rows) for k in ("applied", "cut", "box"))
    if plan.region is not None:
        edges = np.concatenate([plan.region.start, plan.region.stop], 1)
        np.testing.assert_array_equal(edges[cut], box[cut])
        whole = [0, 0, *spatial]
        assert np.all(edges[applied & ~cut] == whole) and np.all(edges[~applied] == 0)
    if "targets" in case:  # timm smooths these towards one half.
        labels, smoothing = SMOOTHING / 2 + (1 - SMOOTHING) * jnp.asarray(case["targets"]), 0.0
    else:
        smoothing = SMOOTHING
    assert_mixed(
        case,
        plan,
        images,
        labels,
        opaque=plan.opacity is None,
        num_classes=CLASSES,
        smoothing=smoothing,
    )


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_the_cases_of_timm_have_every_outcome(mode):
    """Otherwise equality would prove less than it seems to."""
    cases = [case for name, case in TIMM.items() if name.startswith(f"both-{mode}")]
    applied, cut = (np.concatenate([case[k] for case in cases]) for k in ("applied", "cut"))
    assert {(bool(a), bool(c)) for a, c in zip(applied, cut, strict=True)} == {
        (True, True),
        (True, False),
        (False, False),
    }


@pytest.mark.parametrize("library, law", [("timm", "timm"), ("torchvision", "paper")])
@pytest.mark.parametrize("size", [(224, 224), (17, 30)], ids=str)
def test_many_boxes(library, law, size):
    """From lambda and a centre to the box and the corrected lambda, exactly."""
    case = {"timm": TIMM, "torchvision": TORCHVISION}[library][f"boxes-{size[0]}x{size[1]}"]
    uniforms = inside(case["centre"], size)
    area, places = 1 - jnp.asarray(case["drawn_lam"]), jnp.asarray(uniforms, jnp.float32)
    box = _region.box_of_area(area, places, law, size, (0, 1), (1, 1))
    plan = Plan.of((len(uniforms), *size, 1), "flip", region=box)
    edges = np.concatenate([plan.region.start, plan.region.stop], 1)
    seen = (case["box"][:, :2] < case["box"][:, 2:]).all(1)
    assert seen.mean() > 0.95
    np.testing.assert_array_equal(edges[seen], case["box"][seen])
    helpers.assert_same(plan.lam, case["lam"].astype(np.float32), ulps=1)


def test_where_timm_differs():
    differences = TIMM["differences"]
    assert TIMM.version == "1.0.31"
    images, labels = originals("float32-16x16")
    assert "even" in str(differences["odd_batch"])
    assert recipes.timm()(jax.random.key(0), images[:5], channel_axis=1).shape[0] == 5
    assert "Byte" in str(differences["uint8"])
    bytes_in = (images * 255).astype("uint8")
    assert recipes.timm()(jax.random.key(0), bytes_in, channel_axis=1).dtype == jnp.uint8
    assert differences["writes_into_the_images_it_is_given"]
    given = np.array(images)
    recipes.timm()(jax.random.key(0), given, labels, num_classes=CLASSES, channel_axis=1)
    np.testing.assert_array_equal(given, images)


# torchvision ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", named(TORCHVISION, "cutmix", "mixup"))
def test_torchvision(name):
    """Its RandomChoice of both, of which a case has one."""
    case = TORCHVISION[name]
    images, labels = originals(name)
    spatial = images.shape[2:]
    cut = int(case["which"]) == 1
    place = inside(case["centre"], spatial) if cut else np.full(2, 0.5)
    drawn = [0.25 + 0.5 * cut], [0.5, 0.5], [0.5, 0.5, *place]
    with drawing([np.array(x)[None] for x in drawn], [case["drawn_lam"][None]] * 2):
        mixer = recipes.torchvision(cutmix_alpha=1.0, mixup_alpha=0.2)
        plan = mixer.plan(jax.random.key(0), images.shape, channel_axis=1)
    helpers.assert_same(plan.lam, np.full(len(images), case["lam"], np.float32), ulps=1)
    if cut:
        edges = np.concatenate([plan.region.start, plan.region.stop], 1)
        np.testing.assert_array_equal(edges, np.broadcast_to(case["box"], edges.shape))
    assert_mixed(case, plan, images, labels, opaque=cut, num_classes=CLASSES)


def test_where_torchvision_differs():
    differences = TORCHVISION["differences"]
    assert TORCHVISION.version == "0.29.1"
    assert "Byte" in str(differences["uint8"])
    # With the channels last it cuts width and channels, without a word.
    images, theirs = differences["channels_last"], differences["channels_last_mixed"]
    changed = (theirs != images).any(0)
    assert changed.any() and not (changed == changed[:, :, :1]).all()
    assert (changed == changed[:1]).all()
    ours = CutMix(per="batch", pairing="roll")(jax.random.key(1), images)
    changed = (np.asarray(ours) != images).any(0)
    assert changed.any() and (changed == changed[:, :, :1]).all()


# Keras ------------------------------------------------------------------------------------------


def keras_originals(name):
    """Its images have the channels last, its labels are dense."""
    images, ids = originals(name)
    return images.transpose(0, 2, 3, 1), jax.nn.one_hot(ids, CLASSES)


@pytest.mark.parametrize("name", named(KERAS, "mixup"))
def test_keras_mixup(name):
    case = KERAS[name]
    images, labels = keras_originals(name)
    with drawing([np.full((len(images), 2), 0.5)], [case["drawn_lam"]]):
        mixer = jaxmix.MixUp(0.2, pairing=Permutation(case["partner"]))
        plan = mixer.plan(jax.random.key(0), images.shape)
    np.testing.assert_array_equal(plan.lam, case["drawn_lam"])
    assert_mixed(case, plan, images, labels, opaque=False, channel_axis=-1)


@pytest.mark.parametrize("name", named(KERAS, "cutmix"))
def test_keras_cutmix(name):
    """The same pixels from the same box; Keras's label is that of a box between pixels."""
    case = KERAS[name]
    images, labels = keras_originals(name)
    spatial = images.shape[1:3]
    start, stop = keras_box(case["painted"])
    pairing = Permutation(case["partner"])
    plan = Plan.of(images.shape, pairing, region=Box(jnp.asarray(start), jnp.asarray(stop)))
    np.testing.assert_array_equal(plan.images(images), case["mixed"])

    # Its weight is that of the real-valued corners it drew.
    share = np.sqrt(1 - case["drawn_lam"].astype(np.float64))[:, None]
    sides = share * spatial
    weight = case["weight"].reshape(-1)
    np.testing.assert_allclose(weight, 1 - sides.prod(1) / np.prod(spatial), atol=1e-5)
    off = weight - (1 - case["painted"].mean((1, 2)))
    np.testing.assert_allclose(plan.lam, 1 - case["painted"].mean((1, 2)), atol=2**-23)
    assert np.abs(off).max() > 0.01, "Keras has learned to count pixels"
    np.testing.assert_allclose(
        case["labels"],
        weight[:, None] * labels + (1 - weight[:, None]) * labels[case["partner"]],
        atol=1e-6,
    )

    # "contained" is that law on whole pixels: a side rounds by 1/2, its place then by 1 at most.
    area, places = 1 - jnp.asarray(case["drawn_lam"]), jnp.asarray(case["uniforms"])
    ours = _region.box_of_area(area, places, "contained", spatial, (0, 1), (1, 1))
    begin = case["uniforms"] * (spatial - sides)
    for edge, theirs in ((ours.start, begin), (ours.stop, begin + sides)):
        assert np.abs(np.asarray(edge) - theirs).max() < 1.5


def keras_box(painted):
    """The bounds of what is painted, a box in each row."""
    start, stop = (np.zeros((len(painted), 2), np.int32) for _ in range(2))
    for row, mask in enumerate(painted):
        for axis in (0, 1):
            hit = np.flatnonzero(mask.any(1 - axis))
            if hit.size:
                start[row, axis], stop[row, axis] = hit[0], hit[-1] + 1
        assert mask.sum() == (stop[row] - start[row]).prod()
    return start, stop


def test_where_keras_differs():
    """Its MixUp makes classes that nobody has out of segmentation maps, and loses their axes."""
    assert KERAS.version == "3.15.1"
    maps, theirs = KERAS["differences"]["maps"], KERAS["differences"]["maps_mixed"]
    assert theirs.shape != maps.shape and not np.isin(theirs, np.unique(maps)).all()
    plan = jaxmix.MixUp(0.2).plan(jax.random.key(0), (4, 4, 4, 3))
    ours = plan.maps(jnp.asarray(maps[..., 0], jnp.int32))
    assert ours.shape == maps.shape[:3] and np.isin(ours, np.unique(maps)).all()


def test_the_files_are_small():
    files = list(FOLDER.glob("*.npz"))
    assert len(files) == 4 and sum(path.stat().st_size for path in files) < 2_000_000
