"""The sharded example, end to end: the same run on any number of devices and processes."""

import csv
import json
import shutil
import sys

import helpers
import jax
import numpy as np
import pytest
from flax import nnx

import jaxmix

EXAMPLE = helpers.example("train_sharded")

# Runs the example, prints hashes of the plans that its mixer draws by the keys of its steps and the
# rows of the shards that it took from the data, and saves the network and the optimizer.
RECORDED = """if True:
    import hashlib, importlib.util, json, shutil, sys, jax, numpy
    from flax import nnx
    sys.argv.pop(0)
    spec = importlib.util.spec_from_file_location("train_sharded", sys.argv[0])
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    train_step, make_array = example.train_step, jax.make_array_from_callback
    hashes, shards, trained = {}, set(), []

    def recorded_step(model, optimizer, mixer, key, images, labels):
        plan = mixer.plan(key, (labels.size, *images.shape[2:]))
        for path, leaf in jax.tree_util.tree_leaves_with_path(plan):
            content = hashes.setdefault(jax.tree_util.keystr(path), hashlib.sha256())
            content.update(numpy.asarray(leaf).tobytes())
        trained[:] = model, optimizer
        return train_step(model, optimizer, mixer, key, images, labels)

    def recorded_array(shape, sharding, read):
        rows = len(sharding.spec)
        read_by = [read(index).shape[:rows] for index in sharding.addressable_devices_indices_map(
            shape).values()]
        shards.add((shape[:rows], tuple(read_by)))
        return make_array(shape, sharding, read)

    def save(path, history, *args, **kwargs):
        if len(history) == 2:  # What a run of one epoch leaves behind.
            shutil.copytree(path.parent, f"{path.parent}-first")
        savetxt(path, history, *args, **kwargs)

    numpy.savetxt, savetxt = save, numpy.savetxt
    example.train_step = recorded_step
    jax.make_array_from_callback = recorded_array
    example.main()
    if jax.process_index() == 0:
        leaves = jax.tree_util.tree_leaves_with_path(nnx.state(tuple(trained)))
        state = {jax.tree_util.keystr(path): numpy.asarray(leaf) for path, leaf in leaves}
        numpy.savez(sys.argv[sys.argv.index("--out") + 1] + "/state.npz", **state)
    hashes = {path: content.hexdigest() for path, content in hashes.items()}
    print(json.dumps({"plans": hashes, "shards": sorted(shards)}))
"""


@pytest.fixture(scope="module")
def example():
    return helpers.load(EXAMPLE)


def run(out, *options, processes=1):
    """Runs the example in one process or in several; returns what each of them recorded."""
    command = ["-c", RECORDED, EXAMPLE, "--out", out, *options]
    if processes == 1:
        outputs = helpers.run_together(command, optimised=True)
    else:
        command += ["--coordinator", f"localhost:{helpers.free_port()}"]
        command += ["--num-processes", processes, "--process-id"]
        commands = ([*command, i] for i in range(processes))
        outputs = helpers.run_together(*commands, optimised=True)
    printed = [text.splitlines() for text, _ in outputs]
    assert printed[0][-2].startswith("test accuracy 0.")
    assert not any("accuracy" in line for lines in printed[1:] for line in lines)
    return [json.loads(lines[-1]) for lines in printed]


def metrics(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def state(folder):
    """Parameters, moments and counts by their paths."""
    with np.load(folder / "state.npz") as saved:
        return dict(saved)


def assert_close(folder, other):
    """The same parameters to the tolerance of float32 sums in another order."""
    left, right = state(folder), state(other)
    parameters = [path for path in left if path.startswith("[0]")]
    assert left.keys() == right.keys() and len(parameters) == 8
    for path in parameters:
        leaf = left[path]
        np.testing.assert_allclose(leaf, right[path], rtol=1e-3, atol=1e-5, err_msg=path)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    """Two epochs on four devices of one process: the folder, and what it recorded."""
    out = tmp_path_factory.mktemp("one")
    return out, run(out, "--devices", 4, "--epochs", 2)[0]


def test_the_run_learns(one_process):
    folder, _ = one_process
    first, last = metrics(folder)
    assert list(first) == ["epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy"]
    assert 0 < last["train_loss"] < first["train_loss"] < 3
    assert 0 < last["test_loss"] < first["test_loss"] < 3
    assert last["test_accuracy"] > 0.5


def test_two_processes_train_as_one_does(one_process, tmp_path):
    folder, alone = one_process
    first, second = run(tmp_path, "--devices", 2, "--epochs", 2, processes=2)
    assert first["plans"] == second["plans"] == alone["plans"]
    assert len(alone["plans"]) == 4, "start, stop, opacity and lam"
    half, whole = (
        [shards for shape, shards in run["shards"] if shape == [1, 64]] for run in (first, alone)
    )
    assert first["shards"] == second["shards"]
    assert half == [[[1, 16]] * 2] and whole == [[[1, 16]] * 4], "each reads its half of each batch"
    assert_close(tmp_path, folder)


def test_micro_batches_train_as_the_whole_batch_does(one_process, tmp_path):
    """On another number of devices, too; the slices of a plan behind each other are the plan."""
    folder, whole = one_process
    (parts,) = run(tmp_path, "--devices", 2, "--epochs", 2, "--accumulate", 2)
    assert parts["plans"] == whole["plans"]
    assert [[2, 32], [[2, 16]] * 2] in parts["shards"]
    assert_close(tmp_path, folder)
    for one, other in zip(metrics(tmp_path), metrics(folder), strict=True):
        assert one == pytest.approx(other, rel=1e-3)


@pytest.mark.full
def test_a_resumed_run_is_one_run_to_the_bit(one_process, tmp_path):
    folder, _ = one_process
    shutil.copytree(f"{folder}-first", tmp_path / "out")
    assert len(metrics(tmp_path / "out")) == 1
    run(tmp_path / "out", "--devices", 4, "--epochs", 2, "--resume")
    whole, parts = state(folder), state(tmp_path / "out")
    assert whole.keys() == parts.keys()
    for path, leaf in whole.items():
        np.testing.assert_array_equal(parts[path], leaf, err_msg=path)
    assert metrics(tmp_path / "out") == metrics(folder)


@pytest.mark.full
def test_two_processes_go_on_where_one_stopped(one_process, tmp_path):
    folder, _ = one_process
    shutil.copytree(f"{folder}-first", tmp_path / "out")
    run(tmp_path / "out", "--devices", 2, "--epochs", 2, "--resume", processes=2)
    assert_close(tmp_path / "out", folder)


@pytest.fixture
def model(example):
    """A network on a mesh of eight devices, and its optimizer, which the test may use up."""
    with jax.set_mesh(helpers.mesh_of({"data": 8}, "Auto")):
        yield example.create(jax.random.key(0), "small", (8, 8, 1))


def pixels_and_labels(count):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (count, 8, 8, 1), np.uint8)
    return images, rng.integers(0, 10, count, np.int32)


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_step_learns_from_what_the_plan_shows(example, model, micro_batches):
    """One plan, by the key of the step, for all of its micro-batches."""
    network, optimizer = model
    images, labels = pixels_and_labels(16)
    mixer = example.make_mixer("both", 1.0, "example")
    plan = mixer.plan(jax.random.key(1), images.shape)
    logits = network(plan.images(images).astype(np.float32) / 255)
    expected = plan.loss(example.cross_entropy, logits, labels).mean()
    unmixed = example.cross_entropy(network(images.astype(np.float32) / 255), labels).mean()
    assert abs(expected - unmixed) > 1e-3
    rows = np.arange(16).reshape(micro_batches, -1)
    split = [example.on_mesh(x, rows) for x in (images, labels)]
    with jax.numpy_dtype_promotion("standard"):  # optax promotes the step of its schedule.
        key = jax.random.key(1)
        loss, accuracy = example.train_step(network, optimizer, mixer, key, *split)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(accuracy, plan.accuracy(logits, labels).mean(), rtol=1e-5)


def test_every_epoch_reads_the_examples_in_an_order_of_its_own(example, monkeypatch, tmp_path):
    orders = []

    def train_epoch(model, optimizer, mixer, key, data, batches, bar):
        orders.append(batches.ravel())
        return [0.0, 0.0]

    monkeypatch.setattr(example, "start", lambda args: None)
    monkeypatch.setattr(example, "train_epoch", train_epoch)
    monkeypatch.setattr(example, "evaluate", lambda *args: [0.0, 0.0])
    monkeypatch.setattr(example, "save", lambda *args: None)
    monkeypatch.setattr(sys, "argv", ["train_sharded.py", "--epochs", "2", "--out", str(tmp_path)])
    with jax.set_mesh(helpers.mesh_of({"data": 8}, "Auto")):
        example.main()
    one, other = orders
    assert len(set(one.tolist())) == len(one) == len(other) and not np.array_equal(one, other)


@pytest.mark.parametrize("backend, times", [("cpu", 3 + 1), ("gpu", 1)])
def test_metrics_are_fetched_once_an_epoch_but_on_cpus(example, monkeypatch, backend, times):
    def step(model, optimizer, mixer, key, images, labels):
        return images.mean(), labels.mean()

    images, labels = pixels_and_labels(12)
    arguments = (
        None,
        None,
        None,
        jax.random.key(0),
        (images, labels),
        np.arange(12).reshape(3, 1, 4),
    )
    with jax.set_mesh(helpers.mesh_of({"data": 2}, "Auto")):
        means, fetched = helpers.metrics_of_an_epoch(
            example, monkeypatch, backend, step, *arguments
        )
    np.testing.assert_allclose(means, [images.mean(), labels.mean()], rtol=1e-6)
    assert fetched == times


def test_every_test_example_counts_once(example, model):
    for count in (1, 16, 37):
        images, labels = pixels_and_labels(count)
        logits = model[0](images.astype(np.float32) / 255)
        loss, accuracy = example.evaluate(model[0], (images, labels), 16)
        np.testing.assert_allclose(loss, example.cross_entropy(logits, labels).mean(), rtol=1e-5)
        np.testing.assert_allclose(accuracy, (np.argmax(logits, -1) == labels).mean(), rtol=1e-6)


def refusal(example, monkeypatch, capsys, *options):
    """What `main` prints to stderr before it exits with code 2, on the devices of this process."""
    monkeypatch.setattr(example, "start", lambda args: None)
    return helpers.refusal(example, monkeypatch, capsys, *options)


def test_processes_that_were_started_differently_are_refused(tmp_path):
    port, command = helpers.free_port(), [EXAMPLE, "--out", tmp_path / "out", "--epochs", 1]
    command += ["--coordinator", f"localhost:{port}", "--num-processes", 2, "--process-id"]
    with pytest.raises(AssertionError, match="started with the same arguments"):
        helpers.run_together([*command, 0, "--seed", 0], [*command, 1, "--seed", 1])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("per", ["example", "pair", "batch"])
@pytest.mark.parametrize("name", ["none", "cutmix", "mixup", "both"])
def test_mixers_are_what_their_names_say(example, name, per):
    cutmix, mixup = jaxmix.CutMix(0.7, per=per), jaxmix.MixUp(0.7, per=per)
    both = jaxmix.RandomChoice((cutmix, mixup), per=per)
    none = jaxmix.RandomApply(mixup, prob=0.0)
    expected = {"none": none, "cutmix": cutmix, "mixup": mixup, "both": both}[name]
    assert example.make_mixer(name, 0.7, per) == expected


def test_resnet18_is_one(example):
    """The 11,173,962 weights of the usual one for CIFAR-10, less 1,792 of norms that it adds."""
    with jax.set_mesh(helpers.mesh_of({"data": 2}, "Auto")):
        model = nnx.eval_shape(lambda: example.create(jax.random.key(0), "resnet18", (8, 8, 3))[0])
    sizes = [x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param))]
    assert sum(sizes) == 11_173_962 - 1_792


@pytest.mark.full
def test_resnet18_learns_from_a_step(example):
    with jax.set_mesh(helpers.mesh_of({"data": 2}, "Auto")):
        model, optimizer = example.create(jax.random.key(0), "resnet18", (8, 8, 3))
        images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
        labels = np.arange(4, dtype=np.int32)
        split = [example.on_mesh(x, np.arange(4)[None]) for x in (images, labels)]
        before, both = (
            np.asarray(model.dense.kernel[...]),
            example.make_mixer("both", 1.0, "example"),
        )
        with jax.numpy_dtype_promotion("standard"):  # optax promotes the step of its schedule.
            losses = [
                example.train_step(model, optimizer, both, jax.random.key(1), *split)[0]
                for _ in range(3)
            ]
        assert np.isfinite(losses).all() and losses[2] < losses[0]
        assert (np.asarray(model.dense.kernel[...]) != before).any()


def test_cifar_is_read_from_its_binary_files(example, tmp_path):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (12, 32, 32, 3), np.uint8)
    labels = generator.integers(0, 10, 12, np.int32)
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    for i, name in enumerate(names):
        part = slice(2 * i, 2 * i + 2)
        planes = np.moveaxis(images[part], -1, 1).reshape(2, -1)
        record = np.hstack([labels[part, np.newaxis].astype(np.uint8), planes])
        (tmp_path / name).write_bytes(record.tobytes())
    train, test = example.load_data("cifar-10", tmp_path)
    for read, part in ((train, slice(10)), (test, slice(10, 12))):
        np.testing.assert_array_equal(read[0], images[part])
        np.testing.assert_array_equal(read[1], labels[part])
        assert (read[0].dtype, read[1].dtype) == (np.uint8, np.int32)
    (tmp_path / "test_batch.bin").write_bytes(b"0" * 3072)
    with pytest.raises(ValueError, match=r"test_batch.bin is cut short"):
        example.load_data("cifar-10", tmp_path)


def test_digits_are_whole_shares_of_white(example):
    (images, labels), (test_images, test_labels) = example.load_data("digits", None)
    assert images.shape == (1437, 8, 8, 1) and test_images.shape == (360, 8, 8, 1)
    assert images.dtype == np.uint8 and labels.dtype == test_labels.dtype == np.int32
    assert set(np.unique(images)) == {round(level * 255 / 16) for level in range(17)}


AMONG = ["--num-processes", "2", "--process-id", "0"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--accumulate", "3"], "multiple of 2 x --accumulate"),
        (["--accumulate", "64"], "multiple of 2 x --accumulate"),
        (["--accumulate", "0"], "--accumulate must be at least 1, got 0"),
        (["--devices", "0"], "--devices must be at least 1, got 0"),
        (["--seed", "-1"], "--seed must be from 0 to 2**32 - 1, got -1"),
        (["--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["--coordinator", "localhost:1"], "go together"),
        (["--num-processes", "2", "--process-id", "0"], "go together"),
        (["--batch-size", "many"], "--batch-size"),
        ([*AMONG, "--coordinator", "nowhere"], "--coordinator must be HOST:PORT"),
        ([*AMONG, "--coordinator", ""], "--coordinator must be HOST:PORT"),
        ([*AMONG, "--coordinator", "localhost:1", "--distributed"], "exclude each other"),
        ([*AMONG, "--coordinator", "localhost:1", "--process-id", "2"], "from 0 to"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(example, monkeypatch, capsys, options, expected):
    assert expected in refusal(example, monkeypatch, capsys, *options)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--batch-size", "2000"], "up to 1437"),
        (["--batch-size", "20"], "multiple of 8 devices x 1 micro-batches"),
        (["--alpha", "0"], "alpha must be positive"),
        (["--dataset", "fashion-mnist", "--data-dir", "nowhere"], "apt install"),
        (["--dataset", "cifar-10"], "cifar-10-binary.tar.gz"),
    ],
    ids=str,
)
def test_a_run_that_cannot_start_says_why(
    example, monkeypatch, capsys, tmp_path, options, expected
):
    out = tmp_path / "out"
    if "devices" in expected:
        helpers.some_devices(8)
    assert expected in refusal(example, monkeypatch, capsys, *options, "--out", out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--seed", "1"], "seed 0, not 1"),
        pytest.param(["--batch-size", "32"], "batch_size 64, not 32", marks=pytest.mark.full),
        pytest.param(["--epochs", "1"], "no checkpoint of 1 to 1", marks=pytest.mark.full),
    ],
    ids=str,
)
def test_resume_refuses_another_run(example, one_process, monkeypatch, capsys, options, expected):
    folder, _ = one_process
    before = (folder / "metrics.csv").read_bytes()
    options = (*options, "--resume", "--out", folder)
    assert expected in refusal(example, monkeypatch, capsys, *options)
    assert (folder / "metrics.csv").read_bytes() == before
