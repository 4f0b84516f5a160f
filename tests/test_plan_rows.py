"""Parts of a plan: only the valid rows or pixels, and slices of the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from helpers import axis_types, box_plan, boxes, fresh, mesh_of, numbers
from jax.sharding import NamedSharding, PartitionSpec

from jaxmix import (
    Box,
    CutMix,
    Flip,
    Mask,
    MixUp,
    Permutation,
    Plan,
    RandomApply,
    RandomChoice,
    Roll,
)

OWN = Roll(0)


def regions(rows, spatial=(6, 5)):
    """Every kind of plan by what `Plan.of` makes it from."""
    rng = np.random.default_rng(3)
    box = Box(*map(jnp.asarray, boxes(rows, spatial)))
    mask = Mask(jnp.asarray(rng.random((rows, *spatial)) < 0.5))
    soft = Mask(jnp.asarray(rng.choice([0.0, 0.3, 1.0], (rows, *spatial)), jnp.float32))
    opacity = jnp.asarray(rng.uniform(0.1, 0.9, rows), jnp.float32)
    return {
        "box": {"region": box},
        "mask": {"region": mask},
        "soft-mask": {"region": soft},
        "opacity": {"opacity": opacity},
        "faded-box": {"region": box, "opacity": opacity},
        "faded-mask": {"region": mask, "opacity": opacity},
        "everything": {},
    }


def batch_of(rows, seed=0):
    """Images, class ids, maps and logits."""
    shape = (rows, 6, 5, 3)
    ids = np.random.default_rng(seed).integers(0, 7, rows)
    maps, logits = numbers(shape[:3], "int32", seed), numbers((rows, 7), seed=seed)
    return numbers(shape, seed=seed), ids, maps, logits


def own_loss(outputs, labels):
    """The logit of the label, so that no sum rounds in another order."""
    return outputs[jnp.arange(labels.size), labels]


@jax.jit
def mixed_by(plan, batch, donors=None):
    """Everything that a plan computes from a batch."""
    images, ids, maps, logits = batch
    other_images, other_ids, other_maps, _ = donors or (None,) * 4
    return {
        "images": plan.images(images, donors=other_images),
        "labels": plan.labels(ids, num_classes=7, donors=other_ids),
        "maps": plan.maps(maps, donors=other_maps),
        "loss": plan.loss(own_loss, logits, ids, donors=other_ids),
        "accuracy": plan.accuracy(logits, ids, donors=other_ids),
    }


def unmixed(batch):
    """The same of rows that are left alone."""
    images, ids, maps, logits = batch
    own = logits[np.arange(ids.size), ids]
    credit = (logits.argmax(1) == ids).astype(np.float32)
    labels = np.eye(7, dtype=np.float32)[ids]
    return {"images": images, "labels": labels, "maps": maps, "loss": own, "accuracy": credit}


def assert_same_bits(found, expected, rows=slice(None)):
    """Equal to the bit, in some of the rows."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        one, other = np.asarray(one)[rows], np.asarray(other)[rows]
        assert one.shape == other.shape and one.dtype == other.dtype
        if one.dtype != bool:
            one, other = reference.bits(one), reference.bits(other)
        assert np.array_equal(one, other)


VALID = np.array([1, 1, 0, 1, 1, 1, 0], bool)
BY_SEVEN = {
    "flip": Flip(),
    "flip-groups7": Flip(groups=7),
    "roll": Roll(),
    "roll-back2": Roll(-2),
    "roll-none": OWN,
    "permutation": Permutation(np.array([3, 0, 1, 6, 2, 4, 5], np.int32)),
}


def valid_pairs(plan, valid=VALID, theirs=VALID):
    """The rows that are to be mixed."""
    return np.array([valid[i] and theirs[j] for i, j in enumerate(np.asarray(plan.partner))])


@pytest.mark.parametrize(
    ("kind", "pairing"),
    [
        *[(kind, "flip") for kind in regions(1)],
        *[("faded-box", pairing) for pairing in BY_SEVEN if pairing != "flip"],
        *[("box", pairing) for pairing in ("roll", "permutation")],
    ],
)
def test_only_mixes_valid_rows_with_valid_partners(kind, pairing):
    """To the bit: rows with one of them invalid are the originals, all others as without `only`."""
    plan = Plan.of((7, 6, 5, 3), BY_SEVEN[pairing], **regions(7)[kind])
    batch, on = batch_of(7), valid_pairs(plan)
    batch[0][~VALID] = np.nan

    only = plan.only(VALID)
    assert only.partner.tolist() == plan.partner.tolist() and only.spatial == plan.spatial
    assert np.all(np.asarray(only.lam)[~on] == 1)
    assert_same_bits(only.lam, plan.lam, on)
    as_drawn = mixed_by(plan, batch)
    found = mixed_by(only, batch)
    assert_same_bits(found, unmixed(batch), ~on)
    assert_same_bits(found, as_drawn, on)
    assert np.isfinite(np.asarray(found["images"])[VALID]).all()

    everybody, nobody = plan.only(np.ones(7, bool)), plan.only(jnp.zeros(7, bool))
    assert_same_bits(everybody.lam, plan.lam)
    assert_same_bits(mixed_by(everybody, batch), as_drawn)
    assert nobody.lam.tolist() == [1.0] * 7
    assert_same_bits(mixed_by(nobody, batch), unmixed(batch))


def test_only_changes_what_is_painted_and_not_how():
    """Opaque plans stay opaque, so bools can be mixed; what has no region gets none."""
    for kind, how in regions(7).items():
        plan = Plan.of((7, 6, 5, 3), Flip(), **how)
        only = plan.only(VALID)
        if how:
            assert jax.tree.structure(only) == jax.tree.structure(plan)
            dtypes = [[x.dtype for x in jax.tree.leaves(p)] for p in (only, plan)]
            assert dtypes[0] == dtypes[1]
        assert (only.region is None) == ("region" not in how), kind
        if kind in ("box", "mask"):
            lit, on = jnp.asarray(numbers((7, 6, 5, 3), "bool")), valid_pairs(plan)
            assert_same_bits(only.images(lit), plan.images(lit), on)
            assert_same_bits(only.images(lit), lit, ~on)


@pytest.mark.parametrize("kind", ["soft-mask", "opacity", "faded-box"])
def test_padding_reaches_no_gradient(kind):
    plan = Plan.of((7, 6, 5, 3), Roll(), **regions(7)[kind])
    images, cotangent = numbers((7, 6, 5, 3)), numbers((7, 6, 5, 3), seed=1)
    images[~VALID] = np.nan

    @jax.jit
    def gradient(images, valid):
        rows = valid[:, None, None, None]

        def total(images):
            return jnp.where(rows, plan.only(valid).images(images) * cotangent, 0).sum()

        return jax.grad(total)(images)

    found = np.asarray(gradient(images, VALID))
    weights = np.asarray(plan.only(VALID).weights(images.shape))[..., None]
    expected = np.where(VALID[:, None, None, None], weights * cotangent, 0)
    expected += np.roll(np.where(VALID[:, None, None, None], (1 - weights) * cotangent, 0), -1, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert not found[~VALID].any()


@pytest.mark.parametrize("kind", ["box", "soft-mask", "opacity", "everything"])
def test_padding_is_in_no_valid_rows_label(kind):
    """Painted with the one-hot vector of its number, a row shows where it has come to."""
    plan = Plan.of((7, 6, 5, 7), Roll(2), **regions(7)[kind]).only(VALID)
    number = np.broadcast_to(np.eye(7, dtype=np.float32)[:, None, None], (7, 6, 5, 7))
    shown = np.asarray(plan.images(jnp.asarray(number)), np.float64).mean((1, 2))
    labels = plan.labels(jnp.arange(7), num_classes=7)
    np.testing.assert_allclose(labels, shown, rtol=0, atol=2**-22)
    for table in (shown, np.asarray(labels)):
        assert not table[np.ix_(VALID, ~VALID)].any()
        assert not table[np.ix_(~VALID, VALID)].any()
        np.testing.assert_allclose(table.sum(1), np.ones(7), rtol=0, atol=2**-22)


@pytest.mark.parametrize("pairing", [OWN, Roll(3)], ids=repr)
def test_only_with_the_valid_rows_of_the_donors(pairing):
    """Rows of two batches, either of them padded: here a row that is its own partner is mixed."""
    plan = Plan.of((7, 6, 5, 3), pairing, **regions(7)["faded-box"])
    batch, donors = batch_of(7), batch_of(7, seed=1)
    theirs = np.array([0, 1, 1, 1, 0, 1, 1], bool)
    donors[0][~theirs] = np.nan
    on = valid_pairs(plan, theirs=theirs)
    only = plan.only(VALID, donors=jnp.asarray(theirs))
    assert np.all(np.asarray(only.lam)[~on] == 1)
    found = mixed_by(only, batch, donors)
    assert_same_bits(found, mixed_by(plan, batch, donors), on)
    assert_same_bits(found, unmixed(batch), ~on)


def test_only_under_jit_is_only_without_and_traces_once():
    traces = []

    @jax.jit
    def step(plan, valid):
        traces.append(None)
        return plan.only(valid)

    plan = RandomChoice((CutMix(), MixUp())).plan(fresh(), (7, 6, 5, 3))
    for valid in (VALID, ~VALID, np.ones(7, bool)):
        assert_same_bits(step(plan, valid), plan.only(valid))
    assert len(traces) == 1


def slices_of(plan, size):
    """The plans of the micro-batches of that size."""
    return [plan[k : k + size] for k in range(0, plan.lam.shape[0], size)]


def rows_of(batch, start, stop):
    """A part of every array of a batch."""
    return tuple(x[start:stop] for x in batch)


@pytest.mark.parametrize("groups", [3, 6, 12])
@pytest.mark.parametrize("kind", ["box", "mask", "everything"])
def test_slices_mix_what_the_whole_mixes(kind, groups):
    """Three micro-batches of one, two or four groups: bit for bit the whole batch."""
    plan = Plan.of((12, 6, 5, 3), Flip(groups=groups), **regions(12)[kind])
    batch = batch_of(12)
    parts = slices_of(plan, 4)
    assert [part.pairing for part in parts] == [Flip(groups=groups // 3)] * 3
    mixed = [mixed_by(part, rows_of(batch, 4 * k, 4 * k + 4)) for k, part in enumerate(parts)]
    found = jax.tree.map(lambda *x: np.concatenate(x), *mixed)
    assert_same_bits(found, mixed_by(plan, batch))


@pytest.mark.parametrize("kind", ["soft-mask", "opacity", "faded-mask"])
def test_slices_blend_what_the_whole_blends(kind):
    """What a slice holds is the whole's to the bit; a blend may be rounded in another way."""
    plan = Plan.of((12, 6, 5, 3), Flip(groups=6), **regions(12)[kind])
    batch, parts = batch_of(12), slices_of(plan, 4)
    drawn = [(part.region, part.opacity, part.lam) for part in parts]
    together = jax.tree.map(lambda *x: np.concatenate(x), *drawn)
    assert_same_bits(together, (plan.region, plan.opacity, plan.lam))
    mixed = [mixed_by(part, rows_of(batch, 4 * k, 4 * k + 4)) for k, part in enumerate(parts)]
    found, expected = jax.tree.map(lambda *x: np.concatenate(x), *mixed), mixed_by(plan, batch)
    for name in ("images", "labels", "loss", "accuracy"):
        assert np.all(reference.ulps(found[name], np.asarray(expected[name])) <= 1), name
    assert np.array_equal(found["maps"], expected["maps"])


def test_slices_of_any_rows_with_donors():
    plan = box_plan((7, 6, 5, 3), OWN)
    batch, donors = batch_of(7), batch_of(7, seed=1)
    expected = mixed_by(plan, batch, donors)
    for start, stop in [(0, 3), (3, 4), (2, 7)]:
        part = plan[start:stop]
        assert part.pairing == OWN and part.spatial == (6, 5)
        found = mixed_by(part, rows_of(batch, start, stop), rows_of(donors, start, stop))
        assert_same_bits(found, jax.tree.map(lambda x, i=start, j=stop: x[i:j], expected))


@pytest.mark.parametrize("pairing", BY_SEVEN.values(), ids=BY_SEVEN)
def test_the_slice_of_all_rows_is_the_plan(pairing):
    plan = box_plan((7, 6, 5, 3), pairing, opacity=jnp.linspace(0, 1, 7))
    for copy in (plan[:], plan[0:7], plan[-7:], plan[:99:1]):
        assert_same_bits(copy, plan)


@pytest.mark.parametrize(
    "rows",
    [
        slice(-4, None),
        slice(None, -4),
        slice(2, 6),
        slice(-6, 99),
        slice(np.int64(2), None, 1),
        slice(4, 4),
        slice(6, 2),
        slice(8, None),
        slice(0, 0),
    ],
    ids=str,
)
def test_bounds_of_a_slice_are_pythons(rows):
    plan = box_plan((8, 6, 5, 3), Flip(groups=4))
    part, images = plan[rows], numbers((8, 6, 5, 3))
    assert part.lam.tolist() == plan.lam[rows].tolist()
    assert part.region.stop.tolist() == plan.region.stop[rows].tolist()
    assert part.partner.tolist() == [i ^ 1 for i in range(part.lam.size)]
    mixed = np.asarray(plan.images(jnp.asarray(images)))
    assert np.array_equal(part.images(jnp.asarray(images[rows])), mixed[rows])


def test_a_slice_of_a_slice():
    plan = box_plan((8, 6, 5, 3), Flip(groups=4))
    assert_same_bits(plan[2:8][2:4], plan[4:6])


def test_slices_stack_for_a_scan():
    """Gradient accumulation: one plan, drawn for the full batch, applied part by part."""
    mixer = RandomApply(CutMix(pairing=Flip(groups=6)), 0.7)
    images = jnp.asarray(numbers((12, 6, 5, 3)))

    @jax.jit
    def accumulate(key, images):
        plan = mixer.plan(key, images.shape)
        parts = jax.tree.map(lambda *x: jnp.stack(x), *slices_of(plan, 4))

        def step(total, part):
            mixed = part[0].images(part[1])
            return total + mixed.sum(), (mixed, part[0].labels(jnp.arange(4), num_classes=4))

        _, mixed = jax.lax.scan(step, 0.0, (parts, images.reshape(3, 4, 6, 5, 3)))
        return jax.tree.map(lambda x: x.reshape(12, *x.shape[2:]), mixed)

    plan = mixer.plan(fresh(), images.shape)
    labels = plan.labels(jnp.arange(12) % 4, num_classes=4)
    assert_same_bits(accumulate(fresh(), images), (plan.images(images), labels))


def test_only_and_slices_commute():
    plan = box_plan((12, 6, 5, 3), Flip(groups=3), opacity=jnp.linspace(0, 1, 12))
    valid = np.arange(12) < 9
    for start in (0, 4, 8):
        part = plan[start : start + 4].only(valid[start : start + 4])
        assert_same_bits(part, plan.only(valid)[start : start + 4])


# Only valid pixels.


def padded(rows=8, spatial=(8, 6), seed=0):
    """Images of different sizes in one batch: what is valid, as a box and as bools."""
    rng = np.random.default_rng(seed)
    sizes = np.stack([rng.integers(n // 2, n, rows) for n in spatial], 1)
    sizes[1], sizes[2, 0] = spatial, 0  # One that is whole, and one of which nothing is valid.
    along = [np.arange(n) for n in spatial]
    inside = [i < sizes[:, d : d + 1] for d, i in enumerate(along)]
    valid = inside[0][:, :, None] & inside[1][:, None]
    return Box(jnp.zeros((rows, 2), jnp.int32), jnp.asarray(sizes, jnp.int32)), jnp.asarray(valid)


def speckled(rows=8, spatial=(8, 6), seed=0):
    return jnp.asarray(np.random.default_rng(seed).random((rows, *spatial)) < 0.7)


VALID_MIXERS = {
    "cutmix": CutMix(),
    "mixup": MixUp(),
    "choice": RandomChoice((CutMix(), MixUp())),
    "runs": CutMix(per=4, pairing="roll"),
    "permutation": MixUp(per="batch", pairing=Permutation()),
    "applied": RandomApply(CutMix(box="contained", pairing="flip"), 0.7),
}


def check_pixels(plan, only, valid, others):
    """Law 1 on the valid pixels, and nothing painted where something is not valid."""
    rows = valid.shape[0]
    eye = np.broadcast_to(np.eye(rows, dtype=np.float32)[:, None, None], (*valid.shape, rows))
    mixed = np.asarray(only.images(jnp.asarray(eye)), np.float64)
    counted = np.asarray(valid)[..., None]
    some = counted.any((1, 2, 3))
    painted = (mixed * counted).sum((1, 2)) / np.maximum(counted.sum((1, 2)), 1)
    labels = np.asarray(only.labels(jnp.arange(rows), num_classes=rows), np.float64)
    np.testing.assert_allclose(labels[some], painted[some], rtol=0, atol=2**-21)
    np.testing.assert_array_equal(labels[~some], np.eye(rows)[~some])
    both = np.asarray(valid) & np.asarray(others)
    before, after = (np.asarray(p.weights((*valid.shape, 1))) for p in (plan, only))
    np.testing.assert_array_equal(after, np.where(both, before, 1))
    assert (before < 1).any() and (np.asarray(only.lam) != np.asarray(plan.lam)).any()


@pytest.mark.parametrize("kind", ["padding", "void"])
@pytest.mark.parametrize("name", VALID_MIXERS)
def test_only_valid_pixels_are_painted_and_counted(name, kind):
    plan = VALID_MIXERS[name].plan(fresh(), (8, 8, 6, 3))
    valid = padded()[1] if kind == "padding" else speckled()
    check_pixels(plan, plan.only(valid), valid, valid[plan.partner])


@pytest.mark.parametrize("name", VALID_MIXERS)
def test_a_valid_box_is_the_same_as_its_pixels_and_boxes_stay_boxes(name):
    plan = VALID_MIXERS[name].plan(fresh(), (8, 8, 6, 3))
    box, valid = padded()
    if plan.region is None:
        with pytest.raises(ValueError, match=r"^Plan\.only: .* has a region.*bool\[B, \*spatial\]"):
            plan.only(box)
        return
    only, pixels = plan.only(box), plan.only(valid)
    assert isinstance(only.region, Box) and isinstance(pixels.region, Mask)
    np.testing.assert_array_equal(only.lam, pixels.lam)
    images = numbers((8, 8, 6, 3))
    np.testing.assert_array_equal(only.images(images), pixels.images(images))
    check_pixels(plan, only, valid, valid[plan.partner])


@pytest.mark.parametrize("kind", regions(8))
def test_only_valid_pixels_of_every_kind_of_region(kind):
    plan = Plan.of((8, 6, 5, 3), "swap", **regions(8)[kind])
    valid = speckled(spatial=(6, 5))
    check_pixels(plan, plan.only(valid), valid, valid[plan.partner])
    if plan.region is not None:
        box, valid = padded(spatial=(6, 5))
        check_pixels(plan, plan.only(box), valid, valid[plan.partner])


@pytest.mark.parametrize("name", ["cutmix", "mixup", "choice"])
def test_only_the_valid_pixels_of_the_donors(name):
    plan = VALID_MIXERS[name].plan(fresh(), (8, 8, 6, 3))
    valid, others = speckled(), speckled(seed=1)
    only = plan.only(valid, donors=others)
    both = np.asarray(valid & others[plan.partner])
    before, after = (np.asarray(p.weights((8, 8, 6, 3))) for p in (plan, only))
    np.testing.assert_array_equal(after, np.where(both, before, 1))
    if plan.region is not None:
        (box, valid), (donors, others) = padded(), padded(seed=1)
        boxes, pixels = plan.only(box, donors=donors), plan.only(valid, donors=others)
        np.testing.assert_array_equal(boxes.lam, pixels.lam)


def test_nothing_that_is_not_valid_is_shown_or_reaches_a_gradient():
    plan = RandomChoice((CutMix(), MixUp())).plan(fresh(), (8, 8, 6, 3))
    valid = speckled()
    images = jnp.where(valid[..., None], numbers((8, 8, 6, 3)), jnp.nan)

    def total(images):
        mixed = plan.only(valid).images(images)
        return jnp.sum(jnp.where(valid[..., None], mixed, 0)), mixed

    (_, mixed), gradient = jax.value_and_grad(total, has_aux=True)(images)
    np.testing.assert_array_equal(np.isnan(mixed), np.isnan(images))
    assert np.isfinite(gradient).all()


def test_valid_pixels_count_exactly():
    """Lam is the ratio of two counts, rounded once."""
    spatial = (301, 299)
    plan = CutMix().plan(fresh(), (8, *spatial, 1))
    box, valid = padded(spatial=spatial)
    only = plan.only(box)
    painted = np.prod(np.asarray(only.region.stop - only.region.start), axis=1)
    total = np.asarray(valid).sum((1, 2))
    left = np.where(total == 0, 1, (total - painted) / np.maximum(total, 1))
    np.testing.assert_array_equal(only.lam, left.astype(np.float32))
    np.testing.assert_array_equal(plan.only(valid).lam, only.lam)


def test_recordings_of_different_lengths():
    """Their ends are silent: [B, T, F, C], cut in time, valid for as long as they last."""
    plan = CutMix(axes=0).plan(fresh(), (8, 40, 5, 1))
    lengths = jnp.array([40, 31, 22, 40, 7, 1, 0, 33])
    recorded = Box(jnp.zeros((8, 2), jnp.int32), jnp.stack((lengths, jnp.full(8, 5)), 1))
    only = plan.only(recorded)
    np.testing.assert_array_equal(only.region.stop[:, 1] - only.region.start[:, 1] > 0, True)
    mixed = only.images(
        jnp.where(jnp.arange(40)[None] < lengths[:, None], 1.0, 0.0)[..., None, None].repeat(5, 2)
    )
    np.testing.assert_array_equal(mixed.sum((1, 2, 3)), 5 * lengths.astype(jnp.float32))


def test_a_box_that_is_lost_stays_lost():
    plan = jax.jit(lambda alpha: CutMix(alpha).plan(fresh(), (8, 8, 6, 3)))(jnp.nan)
    for valid in padded():
        assert np.isnan(plan.only(valid).lam).all()


def test_valid_pixels_under_jit_vmap_and_on_a_slice():
    plan, (box, valid) = CutMix().plan(fresh(), (8, 8, 6, 3)), padded()
    for given in (box, valid):
        only = plan.only(given)
        again = jax.jit(lambda plan, given: plan.only(given))(plan, given)
        assert jax.tree.structure(again) == jax.tree.structure(only)
        jax.tree.map(np.testing.assert_array_equal, again, only)
        np.testing.assert_array_equal(
            only[2:6].lam, plan[2:6].only(jax.tree.map(lambda x: x[2:6], given)).lam
        )
        many = jax.vmap(plan.only)(jax.tree.map(lambda x: jnp.stack((x, x)), given))
        np.testing.assert_array_equal(many.lam[1], only.lam)


@axis_types
@pytest.mark.parametrize("kind", ["rows", "pixels", "box"])
@pytest.mark.parametrize("name", ["cutmix", "choice", "permutation", "runs"])
def test_only_on_a_mesh_is_only_on_one_device(name, kind, axis_type):
    mesh, mixer = mesh_of({"batch": 8}, axis_type), VALID_MIXERS[name]
    if kind == "box" and name == "permutation":
        return  # It has no region.
    rows = NamedSharding(mesh, PartitionSpec("batch"))
    box, pixels = padded(16)
    valid = {"rows": pixels[:, 0, 0], "pixels": pixels, "box": box}[kind]
    images = numbers((16, 8, 6, 3))

    def mix(key, valid, images):
        plan = mixer.plan(key, (16, 8, 6, 3)).only(valid)
        return plan.lam, plan.images(images), plan.relabel(plan.lam / 2).labels(jnp.eye(16))

    with jax.set_mesh(mesh):
        split = jax.device_put((valid, jnp.asarray(images)), rows)
        found = jax.jit(mix)(fresh(), *split)
    for one, other in zip(found, mix(fresh(), valid, images), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2**-22)


@pytest.mark.parametrize(
    "valid, error, message",
    [
        (np.ones((8, 8, 5), bool), ValueError, r"valid must have the shape \(8, 8, 6\)"),
        (np.ones((8, 8), bool), ValueError, r"valid must have the shape \(8, 8, 6\)"),
        (np.ones((7, 8, 6), bool), ValueError, "valid must have batch size 8, like the plan"),
        (np.ones((8, 8, 6)), TypeError, r"valid must be bool\[B\] or bool\[B, \*spatial\].* > 0"),
        (Mask(np.ones((8, 8, 6), bool)), TypeError, "valid must be an array, got Mask"),
        (Box(np.zeros((7, 2), int), np.ones((7, 2), int)), ValueError, r"Box\.start .*\(8, 2\)"),
        (Box(np.zeros((8, 3), int), np.ones((8, 3), int)), ValueError, r"Box\.start .*\(8, 2\)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_bad_pixels(valid, error, message):
    plan = CutMix().plan(fresh(), (8, 8, 6, 3))
    with pytest.raises(error, match=rf"^Plan\.only: {message}"):
        plan.only(valid)
    with pytest.raises((TypeError, ValueError), match=r"^Plan\.only: "):
        plan.only(padded()[0], donors=valid)
    with pytest.raises((TypeError, ValueError), match=r"^Plan\.only: "):
        plan.only(padded()[1], donors=padded()[0])
