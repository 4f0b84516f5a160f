"""Many devices: every pairing in every mode, what it sends, and the same draws on all of them."""

import functools
import hashlib
import json

import devices
import helpers
import jax
import numpy as np
import pytest
import reference
from helpers import axis_types, both, cover, cross_entropy, fresh, mesh_of, some_devices
from jax.sharding import NamedSharding, PartitionSpec

from jaxmix import CutMix, Flip, MixUp, Neighbour, Permutation, Roll, Swap

ROWS, HEIGHT, WIDTH, CLASSES = 24, 6, 4, 5  # Three rows on each of eight devices: odd groups.
PAIRINGS = {
    "swap": Swap(),
    "flip": Flip(),
    "flip-groups8": Flip(groups=8),
    "roll": Roll(),
    "roll-none": Roll(0),
    "permutation": Permutation(),
}
NEIGHBOURS = {
    "neighbour": Neighbour("batch"),
    "neighbour-swap": Neighbour("batch", Swap()),
    "neighbour-flip": Neighbour("batch", Flip(groups=2)),
    "neighbour-permutation": Neighbour("batch", Permutation()),
}


@functools.cache
def batch():
    """Images, labels, maps, logits, and which rows are no padding."""
    rng = np.random.default_rng(0)
    return (
        rng.random((ROWS, HEIGHT, WIDTH, 2), np.float32),
        rng.integers(0, CLASSES, ROWS, np.int32),
        rng.integers(0, 9, (ROWS, HEIGHT, WIDTH), np.int32),
        rng.random((ROWS, CLASSES), np.float32),
        np.arange(ROWS) < ROWS - 5,
    )


def everything(mixer, key, images, labels, maps, logits, valid, donors=(None,) * 5):
    """All that follows from one draw, and from its valid rows; `donors` are another device's."""
    drawn = mixer.plan(key, images.shape)
    other_images, other_labels, other_maps, _, other_valid = donors
    results = {"lam": drawn.lam, "partner": drawn.partner}
    for name, plan in {"": drawn, "only_": drawn.only(valid, donors=other_valid)}.items():
        soft = plan.labels(labels, num_classes=CLASSES, smoothing=0.1, donors=other_labels)
        results |= {
            f"{name}images": plan.images(images, donors=other_images),
            f"{name}labels": soft,
            f"{name}maps": plan.maps(maps, donors=other_maps),
            f"{name}loss": plan.loss(cross_entropy, logits, labels, donors=other_labels),
            f"{name}accuracy": plan.accuracy(logits, labels, donors=other_labels),
        }
    return results


def assert_equal(results, expected):
    """Draws, labels and classes to the bit, blends within a unit, losses within float32."""
    assert results.keys() == expected.keys()
    for name, value in expected.items():
        result, value = np.asarray(results[name]), np.asarray(value)
        assert (result.shape, result.dtype) == (value.shape, value.dtype), name
        if name.endswith(("images", "labels")):
            assert np.all(reference.ulps(result, value) <= 1), name
        elif name.endswith(("loss", "accuracy")):
            np.testing.assert_allclose(result, value, rtol=1e-5, err_msg=name)
        else:
            assert np.array_equal(result, value), name


# A batch that is split over a mesh.

MESHES = {  # The axes of the mesh; those over which batch, height and width are split.
    "batch": ({"batch": 8}, ("batch", None, None)),
    "batch-model": ({"batch": 4, "model": 2}, ("batch", None, None)),
    "batch-height": ({"batch": 4, "height": 2}, ("batch", "height", None)),
    "batch-width": ({"batch": 4, "width": 2}, ("batch", None, "width")),
    "hosts-devices": ({"hosts": 2, "devices": 4}, (("hosts", "devices"), None, None)),
}


def on_mesh(arrays, mesh, spec, leading=()):
    """Each array split as its axes are: [B], [B, K], [B, H, W] or [B, H, W, C]."""
    result = []
    for array in arrays:
        deep = array.ndim - len(leading) > 2
        split = PartitionSpec(*leading, *(spec if deep else spec[:1]))
        result.append(jax.device_put(array, NamedSharding(mesh, split)))
    return result


def is_split_like(result, array):
    return result.sharding.is_equivalent_to(array.sharding, result.ndim)


def assert_sharding_is_kept(results, arrays):
    """What comes out is laid out over the mesh as the images, labels and maps that went in."""
    images, labels, maps, _, _ = arrays
    for name, result in results.items():
        kind = name.removeprefix("only_")
        if kind in ("images", "maps"):
            assert is_split_like(result, {"images": images, "maps": maps}[kind]), name
        elif kind in ("loss", "accuracy"):
            assert is_split_like(result, labels), name
        elif kind == "labels":
            rows = labels.sharding.spec[: labels.ndim]
            dense = NamedSharding(labels.sharding.mesh, PartitionSpec(*rows, None))
            assert result.sharding.is_equivalent_to(dense, result.ndim), name


@functools.cache
def on_one_device(name, per="example"):
    return jax.jit(everything)(both(PAIRINGS[name], per), fresh(), *batch())


@cover("mesh, name, axis_type", [*MESHES], [*PAIRINGS], ["Auto", "Explicit"])
def test_every_pairing_on_every_mesh(axis_type, mesh, name):
    sizes, spec = MESHES[mesh]
    arrays = on_mesh(batch(), mesh_of(sizes, axis_type), spec)
    results = jax.jit(everything)(both(PAIRINGS[name]), fresh(), *arrays)
    assert_equal(results, on_one_device(name))
    assert_sharding_is_kept(results, arrays)


@pytest.mark.parametrize(
    "mixer", [CutMix(), MixUp(), both(Roll())], ids=["cutmix", "mixup", "both"]
)
@axis_types
def test_split_channels(axis_type, mixer):
    """Then they are not folded into the columns, which an Explicit mesh would refuse."""
    pixels = np.random.default_rng(0).random((8, 6, 4, 4), np.float32)
    spec = PartitionSpec("batch", None, None, "model")
    mesh = mesh_of({"batch": 4, "model": 2}, axis_type)
    images = jax.device_put(pixels, NamedSharding(mesh, spec))
    plan = mixer.plan(fresh(), pixels.shape)
    mixed = jax.jit(lambda x: plan.images(x))(images)
    assert np.all(reference.ulps(np.asarray(mixed), np.asarray(plan.images(pixels))) <= 1)
    assert is_split_like(mixed, images) or axis_type == "Auto"


@cover("axis_type, name", ["Auto", "Explicit"], ["swap", "flip"])
def test_pairs_on_a_mesh(axis_type, name):
    arrays = on_mesh(batch(), mesh_of({"batch": 8}, axis_type), ("batch", None, None))
    results = jax.jit(everything)(both(PAIRINGS[name], "pair"), fresh(), *arrays)
    assert_equal(results, on_one_device(name, "pair"))
    assert_sharding_is_kept(results, arrays)


@cover("name, axis_type", ["swap", "roll", "permutation"], ["Auto", "Explicit"])
def test_vmap_on_a_mesh(axis_type, name):
    arrays = [np.stack([x, x[::-1]]) for x in batch()]
    mesh = mesh_of({"batch": 8}, axis_type)
    split = on_mesh(arrays, mesh, ("batch", None, None), leading=(None,))
    over_two = jax.jit(jax.vmap(functools.partial(everything, both(PAIRINGS[name]))))
    results = over_two(jax.random.split(fresh(), 2), *split)
    assert_equal(results, over_two(jax.random.split(fresh(), 2), *arrays))
    for part in ("images", "only_images"):
        assert is_split_like(results[part], split[0])


@axis_types
def test_a_plan_may_itself_be_split(axis_type):
    """Split over the batch or not, by the caller: it mixes as it did."""
    mesh = mesh_of({"batch": 8}, axis_type)
    images, labels, maps, logits, _ = on_mesh(batch(), mesh, ("batch", None, None))
    rows = NamedSharding(mesh, PartitionSpec("batch"))
    draw = jax.jit(lambda key: both(Flip()).plan(key, images.shape), out_shardings=rows)

    @jax.jit
    def mix(plan):
        return {
            "images": plan.images(images),
            "labels": plan.labels(labels, num_classes=CLASSES, smoothing=0.1),
            "maps": plan.maps(maps),
            "loss": plan.loss(cross_entropy, logits, labels),
        }

    plan = draw(fresh())
    assert plan.lam.sharding.is_equivalent_to(rows, 1)
    results = mix(plan)
    assert_equal(results, {name: on_one_device("flip")[name] for name in results})


@axis_types
def test_a_plan_that_is_split_is_sliced(axis_type):
    mesh = mesh_of({"batch": 8}, axis_type)
    rows = NamedSharding(mesh, PartitionSpec("batch"))
    plan = both(Flip(groups=3)).plan(fresh(), batch()[0].shape)
    part = jax.device_put(plan, rows)[8:24]
    assert part.partner.tolist() == plan[8:24].partner.tolist()
    for one, other in zip(jax.tree.leaves(part), jax.tree.leaves(plan[8:24]), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("name", ["swap", "flip", "flip-groups8", "permutation"])
@axis_types
def test_the_plan_of_a_whole_batch_is_no_plan_of_a_shard(axis_type, name):
    """Its partners live on other devices: mixing within the shard would be a silent fallback."""
    mesh, rows = mesh_of({"batch": 8}, axis_type), PartitionSpec("batch")
    plan = both(PAIRINGS[name]).plan(fresh(), batch()[0].shape)
    plan, images = jax.device_put((plan, batch()[0]), NamedSharding(mesh, rows))
    mix = jax.shard_map(
        lambda plan, images: plan.images(images), mesh=mesh, in_specs=rows, out_specs=rows
    )
    with pytest.raises(ValueError, match=r"batch of 24.*lam is float32\[3\].*inside"):
        mix(plan, images)


@axis_types
def test_gradients_on_a_mesh(axis_type):
    images = batch()[0]
    split = on_mesh([images], mesh_of({"batch": 8}, axis_type), ("batch", None, None))[0]

    def score(images):
        return (both(Flip())(fresh(), images) ** 2).sum()

    gradient = jax.jit(jax.grad(score))(split)
    assert is_split_like(gradient, split)
    np.testing.assert_allclose(gradient, jax.grad(score)(images), rtol=1e-5)


# A batch on each device: pmap and shard_map.

DEVICES = 4


def shards(arrays):
    """[D, B / D, ...]: the batch of each device."""
    return [x.reshape(DEVICES, -1, *x.shape[1:]) for x in arrays]


def on_device(mixer, device, *arrays, donors=(None,) * 5):
    """What one device does, with a key of its own."""
    return everything(mixer, jax.random.fold_in(fresh(), device), *arrays, donors=donors)


@functools.cache
def one_after_the_other(name):
    """What all devices do, in a loop: the neighbour's arrays are handed over as donors."""
    pairing = (PAIRINGS | NEIGHBOURS)[name]
    parts = shards(batch())
    results = []
    for device in range(DEVICES):
        own = [x[device] for x in parts]
        if isinstance(pairing, Neighbour):
            donors = [x[(device + 1) % DEVICES] for x in parts]
            results.append(on_device(both(pairing.local), device, *own, donors=donors))
        else:
            results.append(on_device(both(pairing), device, *own))
    return {key: np.concatenate([result[key] for result in results]) for key in results[0]}


MAPPED = {  # How a function is mapped: axes of the mesh (None for pmap), its type, manual axes.
    "pmap": (None, None, None),
    "shard_map-Auto": ({"batch": DEVICES}, "Auto", {"batch"}),
    "shard_map-Explicit": ({"batch": DEVICES}, "Explicit", {"batch"}),
    "shard_map-partly-Explicit": ({"batch": DEVICES, "model": 2}, "Explicit", {"batch"}),
    "shard_map-both": ({"batch": DEVICES, "model": 2}, "Explicit", {"batch", "model"}),
    "shard_map-partly-Auto": ({"batch": DEVICES, "model": 2}, "Auto", {"batch"}),
}


def mapped(mode, function, arrays, axis=0):
    """Runs `function(*shards)` on every device; `axis` of the arrays and results is split."""
    if mode == "pmap":
        some_devices(DEVICES)
        split = [np.stack(np.split(x, DEVICES, axis)) for x in arrays]
        results = jax.pmap(function, axis_name="batch")(*split)
        return {key: np.concatenate(list(x), axis) for key, x in results.items()}
    function, sharding = sharded(mode, function, axis)
    return jax.jit(function)(*(jax.device_put(x, sharding) for x in arrays))


def sharded(mode, function, axis=0):
    """`function` in a shard_map, and how its arrays are split."""
    sizes, axis_type, manual = MAPPED[mode]
    mesh, spec = mesh_of(sizes, axis_type), PartitionSpec(*[None] * axis, "batch")
    function = jax.shard_map(function, mesh=mesh, in_specs=spec, out_specs=spec, axis_names=manual)
    return function, NamedSharding(mesh, spec)


few_pairings = ["swap", "flip", "roll", "permutation", *NEIGHBOURS]


@cover("mode, name", [*MAPPED], few_pairings)
def test_every_pairing_on_every_device(mode, name):
    mixer = both((PAIRINGS | NEIGHBOURS)[name])

    def step(*arrays):
        return on_device(mixer, jax.lax.axis_index("batch"), *arrays)

    assert_equal(mapped(mode, step, batch()), one_after_the_other(name))


@cover("name, mode", few_pairings, [mode for mode in MAPPED if mode != "pmap"])
def test_gradients_through_every_device(mode, name):
    """Taken outside of the map: mixing is linear in the pixels, and the gradient its transpose."""
    mixer = both((PAIRINGS | NEIGHBOURS)[name])

    def mix(images):
        return mixer(jax.random.fold_in(fresh(), jax.lax.axis_index("batch")), images)

    mix, sharding = sharded(mode, mix)
    rng = np.random.default_rng(1)
    images, weights = (
        jax.device_put(rng.random(batch()[0].shape, np.float32), sharding) for _ in range(2)
    )

    def loss(images):
        return (weights * mix(images)).sum()

    with jax.set_mesh(sharding.mesh):
        value, slopes = jax.jit(jax.value_and_grad(loss))(images)
    slopes, images = np.asarray(slopes, np.float64), np.asarray(images, np.float64)
    assert (slopes * images).sum() == pytest.approx(float(value), rel=1e-5)
    assert (slopes != np.asarray(weights)).any()


ODD = "JAX closes over a mask of the rows, which it cannot do there"


@pytest.mark.parametrize(
    "pairing, spec, batch",
    [
        (Swap(), PartitionSpec("batch", "model"), 16),
        (Roll(), PartitionSpec("batch", "model"), 16),
        (Swap(), PartitionSpec(("batch", "model")), 16),
        (Flip(2), PartitionSpec(("batch", "model")), 16),
        (Roll(), PartitionSpec(("batch", "model")), 16),
        (Roll(), PartitionSpec(("batch", "model")), 24),
        pytest.param(
            *(Swap(), PartitionSpec(("batch", "model")), 24),
            marks=pytest.mark.xfail(raises=ValueError, reason=ODD, strict=True),
        ),
    ],
    ids=repr,
)
def test_gradients_where_another_axis_is_split(pairing, spec, batch):
    """An Explicit axis splits the height, or the rows that one part of the mapped axis has."""
    if spec[0] != "batch" and jax.__version_info__ < (0, 10):
        pytest.skip("before jax 0.10 a shard_map takes no rows that another axis splits")
    mesh = mesh_of({"batch": 4, "model": 2}, "Explicit")
    rows = PartitionSpec("batch")
    mix = jax.shard_map(
        lambda images: MixUp(pairing=pairing)(fresh(), images),
        mesh=mesh,
        in_specs=rows,
        out_specs=rows,
        axis_names={"batch"},
    )
    split = NamedSharding(mesh, spec)
    images = jax.device_put(np.random.default_rng(0).random((batch, 6, 4, 2), np.float32), split)
    weights = jax.device_put(np.random.default_rng(1).random(images.shape, np.float32), split)
    with jax.set_mesh(mesh):
        value, slopes = jax.jit(jax.value_and_grad(lambda x: (weights * mix(x)).sum()))(images)
    assert np.sum(np.asarray(slopes) * np.asarray(images)) == pytest.approx(float(value), rel=1e-5)
    assert is_split_like(slopes, images)


VMAPPED = ["pmap", "shard_map-Explicit", "shard_map-partly-Explicit"]


@cover("mode, name", VMAPPED, ["roll", "neighbour-flip"])
def test_vmap_on_every_device(mode, name):
    mixer = both((PAIRINGS | NEIGHBOURS)[name])
    arrays = [np.stack([x, x]) for x in batch()]

    def step(*arrays):
        device = jax.lax.axis_index("batch")
        return jax.vmap(lambda *arrays: on_device(mixer, device, *arrays))(*arrays)

    results = mapped(mode, step, arrays, axis=1)
    for copy in (0, 1):
        expected = one_after_the_other(name)
        assert_equal({key: x[copy] for key, x in results.items()}, expected)


@pytest.mark.parametrize("mode", ["pmap", "shard_map-Auto", "shard_map-Explicit"])
def test_a_key_that_all_devices_share_draws_the_same_on_each(mode):
    def step(*arrays):
        return everything(both(Neighbour("batch")), fresh(), *arrays)

    lam = np.asarray(mapped(mode, step, batch())["lam"])
    assert np.array_equal(lam.reshape(DEVICES, -1), np.tile(lam[: ROWS // DEVICES], (DEVICES, 1)))


def neighbour_with(axis_name):
    return CutMix(pairing=Neighbour(axis_name))


@pytest.mark.parametrize("axis_type", ["none", "Auto", "Explicit"])
def test_neighbour_under_jit_names_the_alternative(axis_type):
    images = batch()[0]
    if axis_type != "none":
        mesh = mesh_of({"batch": 8}, axis_type)
        images = on_mesh([images], mesh, ("batch", None, None))[0]
    with pytest.raises(ValueError, match=r"'batch' of Neighbour is not bound.*pmap.*Flip\(\)"):
        jax.jit(neighbour_with("batch"))(fresh(), images)


@pytest.mark.parametrize("mode", ["pmap", "shard_map-Auto", "shard_map-Explicit"])
def test_neighbour_of_another_axis_is_refused(mode):
    def step(images):
        return {"images": neighbour_with("data")(fresh(), images)}

    with pytest.raises(ValueError, match="'data' of Neighbour is not bound"):
        mapped(mode, step, batch()[:1])


def test_neighbour_needs_a_neighbour():
    with pytest.raises(ValueError, match=r"size 1.*Flip\(\) or Roll\(\)"):
        jax.pmap(lambda x: neighbour_with("batch")(fresh(), x), axis_name="batch")(
            batch()[0][np.newaxis]
        )


@pytest.mark.parametrize("mode", ["pmap", "shard_map-Explicit"])
def test_groups_must_divide_the_batch_of_a_device(mode):
    """24 rows can be halved four times; the six of a device cannot."""
    mixer = both(Flip(groups=8))
    with pytest.raises(ValueError, match=r"multiple of groups, got 6 rows for Flip\(groups=8\)"):
        mapped(mode, lambda images: {"images": mixer(fresh(), images)}, batch()[:1])


def test_donors_of_another_layout_are_refused():
    mesh = mesh_of({"batch": 4, "model": 2}, "Explicit")
    pixels, others = batch()[0], batch()[0][::-1]
    images = on_mesh([pixels], mesh, ("batch", None, None))[0]
    donors = on_mesh([others], mesh, ("model", None, None))[0]
    plan = both(Roll(0)).plan(fresh(), images.shape)
    with pytest.raises(ValueError, match=r"must be sharded like images.*'batch'.*'model'.*reshard"):
        jax.jit(lambda x, y: plan.images(x, donors=y))(images, donors)
    moved = jax.sharding.reshard(donors, images.sharding)
    expected = np.asarray(plan.images(pixels, donors=others))
    assert np.all(reference.ulps(np.asarray(plan.images(images, donors=moved)), expected) <= 1)


# One device or many, one process or two: the same.


@functools.cache
def without_a_mesh():
    return devices.results()


def assert_the_same(name, result):
    """Draws and opaque pixels by their hashes, blends within a unit."""
    expected = without_a_mesh()[name]
    assert devices.digest(name, result) == devices.digest(name, expected)
    assert np.all(reference.ulps(result[-1], expected[-1]) <= 1)


@cover("count, axis_type", [1, 2, 8], ["Explicit", "Auto"])
def test_the_number_of_devices_does_not_matter(axis_type, count):
    results = devices.results(mesh_of(count, axis_type))
    for name in devices.PAIRINGS:
        assert_the_same(name, results[name])


def test_a_digest_tells_draws_and_opaque_pixels_apart():
    *drawn, opaque, pixels = without_a_mesh()["flip"]
    digest = functools.partial(devices.digest, "flip")
    assert opaque.any() and not opaque.all()
    for i in range(len(drawn)):
        other = [x.copy() for x in drawn]
        other[i].flat[-1] += 1
        assert digest((*other, opaque, pixels)) != digest((*drawn, opaque, pixels))
    shown = np.broadcast_to(opaque, pixels.shape)
    signs = digest((*drawn, opaque, np.where(shown & (pixels == 0), np.float32(0), pixels)))
    blends = digest((*drawn, opaque, np.where(shown, pixels, np.nextafter(pixels, np.float32(2)))))
    assert signs != digest((*drawn, opaque, pixels)) == blends


def test_the_number_of_processes_does_not_matter(tmp_path):
    """Two processes of four devices each, as two hosts have them."""
    port, path = helpers.free_port(), tmp_path / "results.npz"
    commands = ((devices.__file__, port, i, path) for i in range(2))
    outputs = helpers.run_together(*commands)
    digests = [json.loads(printed.splitlines()[-1]) for printed, _ in outputs]
    assert digests[0] == digests[1]
    expected = {name: devices.digest(name, x) for name, x in without_a_mesh().items()}
    with np.load(path) as saved:
        for axis_type in ("Auto", "Explicit"):
            for name in devices.PAIRINGS:
                assert digests[0][f"{axis_type}-{name}"] == expected[name]
                units = reference.ulps(saved[f"{axis_type}-{name}"], without_a_mesh()[name][-1])
                assert np.all(units <= 1)
            assert digests[0][f"{axis_type}-sent"] == {}
            alone = devices.exchanged(mesh_of(8, axis_type))
            neighbour = hashlib.sha256(alone.tobytes()).hexdigest()
            assert digests[0][f"{axis_type}-neighbour"] == neighbour


def test_an_eager_call_stays_on_the_device_of_its_images():
    """Wherever the key is, and labels of another device are refused as jit refuses them."""
    images, labels = batch()[:2]
    *_, there, elsewhere = some_devices(5)
    images = jax.device_put(images, there)
    mixer = both("flip")
    mixed, mixed_labels = mixer(fresh(), images, labels, num_classes=CLASSES)
    assert mixed.devices() == mixed_labels.devices() == {there}
    with pytest.raises(ValueError, match="incompatible devices"):
        mixer(fresh(), images, jax.device_put(labels, elsewhere), num_classes=CLASSES)


def test_an_abort_is_forgiven_only_to_the_coordinator_of_processes():
    """helpers.run_together, whose processes must end well."""
    raced = "import os, sys; print(1); sys.stderr.write('Check failed: queue.Pop() == nullptr'); "
    (printed, _), _ = helpers.run_together(("-c", raced + "os.abort()"), ("-c", ""))
    assert printed == "1\n"
    for program in ("import os; os.abort()", raced + "sys.exit(1)"):
        with pytest.raises(AssertionError):
            helpers.run_together(("-c", program), ("-c", ""))
