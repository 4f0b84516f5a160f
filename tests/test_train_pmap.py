"""The pmap example, end to end: real runs in processes of their own, the rest on its functions."""

import csv
import dataclasses
import gzip
import re
import sys
from typing import ClassVar

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import jax_utils
from flax.training.common_utils import shard
from flax.training.train_state import TrainState

import jaxmix

EXAMPLE = helpers.example("train_pmap")


@pytest.fixture(scope="module")
def example():
    return helpers.load(EXAMPLE)


def rows(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def checkpoint(folder):
    """The leaves of the saved state, by their paths, and the epoch."""
    manager = ocp.CheckpointManager(folder / "checkpoints", item_names=("state", "run"))
    args = ocp.args.Composite(state=ocp.args.StandardRestore())
    tree = manager.restore(manager.latest_step(), args=args)["state"]
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return manager.latest_step(), {jax.tree_util.keystr(k): np.asarray(v) for k, v in leaves}


@pytest.mark.parametrize("backend, times", [("cpu", 3 + 1), ("gpu", 1)])
def test_metrics_are_fetched_once_an_epoch_but_on_cpus(example, monkeypatch, backend, times):
    def step(mixer, key, state, images, labels):
        return state + 1, (images.mean(), labels.mean())

    images, labels = np.arange(16.0, dtype=np.float32)[:, None], np.arange(16)
    monkeypatch.setattr(example, "shard", lambda array: array)
    arguments = None, jax.random.key(0), 0, (images, labels), np.arange(12).reshape(3, 4)
    (state, means), fetched = helpers.metrics_of_an_epoch(
        example, monkeypatch, backend, step, *arguments
    )
    assert (state, means, fetched) == (3, [5.5, 5.5], times)


# Runs the example and keeps what a kill at the end of the second epoch would leave behind: it is
# trained and evaluated, but not saved.
RUN = """if True:
    import numpy, runpy, shutil, sys
    sys.argv.pop(0)
    killed, savetxt = sys.argv.pop(), numpy.savetxt

    def save(path, history, *args, **kwargs):
        if len(history) == 2:
            shutil.copytree(path.parent, killed)
        savetxt(path, history, *args, **kwargs)

    numpy.savetxt = save
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of two epochs: its folder, the one of a killed run, what it printed, its progress."""
    out, killed = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("killed") / "out"
    printed, progress = helpers.run("-c", RUN, EXAMPLE, "--epochs", 2, "--out", out, killed)
    return out, killed, printed.splitlines(), progress


def test_run_learns_and_leaves_its_files(whole):
    out, _, lines, progress = whole
    first, last = rows(out)
    assert list(first) == ["epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy"]
    assert (first["epoch"], last["epoch"]) == (1, 2)
    assert 0 < last["train_loss"] < first["train_loss"] < 3
    assert 0 < last["test_loss"] < first["test_loss"] < 3
    assert 0.5 < last["test_accuracy"] < 1
    assert last["train_accuracy"] < last["test_accuracy"], "mixed images are the harder ones"
    hits = last["test_accuracy"] * 360
    assert abs(hits - round(hits)) < 1e-3, "360 test examples, each counts once"

    assert re.fullmatch(r"test accuracy 0\.\d{3}", lines[-1])
    assert lines[-1] == f"test accuracy {last['test_accuracy']:.3f}"
    shown = r"test accuracy 0\.\d{3}.*loss \d\.\d{3}, accuracy \d\.\d{3} \(mixed\)"
    assert re.search(shown, progress), "the progress bar"
    names = ["checkpoints", "curves.png", "metrics.csv", "mixed.png"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in names if "png" in name)


def test_resume_after_a_kill_equals_one_go_to_the_bit(whole):
    out, killed, lines, _ = whole
    assert len(rows(killed)) == 1
    printed, _ = helpers.run(EXAMPLE, "--epochs", 2, "--out", killed, "--resume")
    assert printed.splitlines()[-1] == lines[-1]
    for name in ("metrics.csv", "mixed.png", "curves.png"):
        assert (killed / name).read_bytes() == (out / name).read_bytes(), name
    (epoch, resumed), (_, expected) = checkpoint(killed), checkpoint(out)
    assert epoch == 2 and resumed.keys() == expected.keys()
    assert any("Conv_0" in path for path in resumed) and any("mu" in path for path in resumed)
    for path in expected:
        np.testing.assert_array_equal(resumed[path], expected[path], err_msg=path)


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture
def fashion(tmp_path):
    """Twenty training and seven test images in the four files of Fashion-MNIST."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 20), ("t10k", 7)):
        arrays[part] = images, labels = (
            rng.integers(0, 256, (count, 28, 28), np.uint8),
            rng.integers(0, 10, count, np.uint8),
        )
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", labels)
    return tmp_path, arrays


def test_fashion_mnist_files_are_read(example, fashion):
    folder, arrays = fashion
    train, test, names = example.load_data("fashion-mnist", folder)
    assert len(names) == 10 and names[9] == "Boot"
    for (images, labels), part in ((train, "train"), (test, "t10k")):
        assert images.dtype == np.float32 and labels.dtype == np.int32
        np.testing.assert_array_equal(images[..., 0] * 255, arrays[part][0])
        np.testing.assert_array_equal(labels, arrays[part][1])


def test_digits_are_split_by_class(example):
    (images, labels), (test_images, test_labels), names = example.load_data("digits", None)
    assert images.shape == (1437, 8, 8, 1) and test_images.shape == (360, 8, 8, 1)
    assert images.min() == 0 and images.max() == 1 and names[3] == "3"
    np.testing.assert_allclose(np.bincount(test_labels) * 4, np.bincount(labels), atol=5)
    seen = {image.tobytes() for image in images}
    assert not any(image.tobytes() in seen for image in test_images)


@pytest.mark.full
def test_run_on_one_device_with_fashion_mnist_files(fashion):
    folder, _ = fashion
    options = ("--dataset", "fashion-mnist", "--data-dir", folder, "--out", folder / "out")
    options += ("--devices", 1, "--batch-size", 3, "--epochs", 1, "--mixer", "cutmix")
    helpers.run(EXAMPLE, *options)
    (row,) = rows(folder / "out")
    hits = row["test_accuracy"] * 7
    assert abs(hits - round(hits)) < 1e-4


def linear_state(apply_fn=None):
    """A replicated state of a network small enough to compile at once, on eight devices."""
    helpers.some_devices(8)

    def linear(variables, images):
        return images.reshape(len(images), -1) @ variables["params"]["w"]

    params = {"w": np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)}
    state = TrainState.create(apply_fn=apply_fn or linear, params=params, tx=optax.sgd(1.0))
    return jax_utils.replicate(state, axis_name="batch")


def batch(count):
    rng = np.random.default_rng(1)
    return rng.random((count, 8, 8, 1), np.float32), rng.integers(0, 10, count, np.int32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Spy:
    """A mixer that notes the keys it is given."""

    alpha: float = 1.0
    keys: ClassVar[list] = []

    def plan(self, key, shape):
        """Notes the key when the plan is drawn, on each device."""
        jax.debug.callback(lambda bits: self.keys.append(bits.tobytes()), jax.random.key_data(key))
        return jaxmix.MixUp(self.alpha).plan(key, shape)


def test_every_device_and_step_has_a_key_of_its_own(example):
    state, key = linear_state(), jax.random.key(0)
    images, labels = map(shard, batch(16))
    for _ in range(2):
        state, metrics = example.train_step(Spy(), key, state, images, labels)
        jax.block_until_ready(metrics)
    jax.effects_barrier()
    assert len(Spy.keys) == len(set(Spy.keys)) == 2 * jax.local_device_count() == 16


def test_a_step_learns_from_what_its_plans_show(example):
    images, labels = map(shard, batch(16))
    state, mixer = linear_state(), example.make_mixer("both", 1.0, "example")
    w = jax.device_get(jax_utils.unreplicate(state)).params["w"]
    losses, unmixed = [], []
    for device in range(jax.local_device_count()):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), device)
        plan = mixer.plan(key, images[device].shape)
        logits = plan.images(images[device]).reshape(len(images[device]), -1) @ w
        losses.append(plan.loss(example.cross_entropy, logits, labels[device]).mean())
        logits = images[device].reshape(len(images[device]), -1) @ w
        unmixed.append(plan.loss(example.cross_entropy, logits, labels[device]).mean())
    _, (loss, _) = example.train_step(mixer, jax.random.key(0), state, images, labels)
    assert abs(np.mean(losses) - np.mean(unmixed)) > 1e-3
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-5)


def test_gradients_are_the_mean_over_the_devices(example):
    images, labels = batch(16)
    state, key = linear_state(), jax.random.key(0)
    none = example.make_mixer("none", 1.0, "example")
    after, (loss, accuracy) = example.train_step(none, key, state, shard(images), shard(labels))
    w = jax.device_get(jax_utils.unreplicate(state)).params["w"]

    def whole_batch(w):
        logits = images.reshape(16, -1) @ w
        return example.cross_entropy(logits, labels).mean(), logits

    (expected, logits), grad = jax.value_and_grad(whole_batch, has_aux=True)(w)
    for device in range(jax.local_device_count()):
        np.testing.assert_allclose(after.params["w"][device], w - grad, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(accuracy, (logits.argmax(-1) == labels).mean())


def test_curves_tell_training_on_mixed_images_from_test(example, monkeypatch, tmp_path):
    saved = helpers.figures(example, monkeypatch)
    example.plot_curves(tmp_path / "curves.png", [[1, 2.0, 0.4, 1.0, 0.8], [2, 1.5, 0.5, 0.5, 0.9]])
    expected = {"loss": ([2.0, 1.5], [1.0, 0.5]), "accuracy": ([0.4, 0.5], [0.8, 0.9])}
    for axes in saved["curves.png"].axes:
        training, test = axes.get_lines()
        assert [training.get_label(), test.get_label()] == ["training (mixed)", "test"]
        assert training.get_marker() != test.get_marker() and axes.get_xlabel() == "epoch"
        drawn = training.get_ydata().tolist(), test.get_ydata().tolist()
        assert drawn == expected.pop(axes.get_ylabel()) and axes.get_legend() is not None
    assert not expected


@pytest.mark.parametrize("count", [1, 16, 37])
def test_every_test_example_counts_once(example, count):
    images, labels = batch(count)
    state = linear_state()
    logits = images.reshape(count, -1) @ jax.device_get(state.params["w"])[0]
    loss, accuracy = example.evaluate(state, (images, labels), 16)
    np.testing.assert_allclose(loss, example.cross_entropy(logits, labels).mean(), rtol=1e-5)
    np.testing.assert_allclose(accuracy, (logits.argmax(-1) == labels).mean())


@pytest.mark.parametrize("per", ["example", "pair", "batch"])
def test_mixers_are_what_their_names_say(example, per):
    key, images = jax.random.key(0), jnp.asarray(batch(8)[0])
    make = example.make_mixer
    assert make("cutmix", 0.7, per) == jaxmix.CutMix(0.7, per=per)
    assert make("mixup", 0.7, per) == jaxmix.MixUp(0.7, per=per)
    both = jaxmix.RandomChoice((jaxmix.CutMix(0.7, per=per), jaxmix.MixUp(0.7, per=per)), per=per)
    assert make("both", 0.7, per) == both
    plan = make("none", 0.7, per).plan(key, images.shape)
    np.testing.assert_array_equal(plan.images(images), images)


def refusal(example, monkeypatch, capsys, *options):
    """What `main` prints to stderr before it exits with code 2."""
    monkeypatch.setattr(jax.config, "update", lambda *args: None)  # JAX has started here already.
    return helpers.refusal(example, monkeypatch, capsys, *options)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--batch-size", "63"], "multiple of --devices"),
        (["--batch-size", "2000"], "up to 1437"),
        (["--batch-size", "0"], "--batch-size"),
        (["--devices", "0"], "--devices"),
        (["--epochs", "0"], "--epochs"),
        (["--epochs", "many"], "--epochs"),
        (["--seed", "-1"], "--seed"),
        (["--alpha", "0"], "alpha"),
        (["--alpha", "nan"], "alpha"),
        (["--mixer", "all"], "--mixer"),
        (["--per", "pixel"], "--per"),
        (["--resume"], "no checkpoint"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(example, monkeypatch, capsys, tmp_path, options, expected):
    out = tmp_path / "out"
    assert expected in refusal(example, monkeypatch, capsys, *options, "--out", out)
    assert not out.exists()


@pytest.fixture
def two_epochs(example, monkeypatch, tmp_path):
    """A folder that looks as if a run of two epochs had ended in it."""
    monkeypatch.setattr(sys, "argv", ["train_pmap.py", "--out", str(tmp_path)])
    monkeypatch.setattr(jax.config, "update", lambda *args: None)
    args, _ = example.parse_args()
    manager = ocp.CheckpointManager(tmp_path / "checkpoints")
    example.save(manager, args, linear_state(), [[epoch, 1, 0, 1, 0] for epoch in (1, 2)])
    manager.close()
    return tmp_path


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--seed", 1], "seed 0, not 1"),
        (["--mixer", "mixup"], "mixer both, not mixup"),
        (["--alpha", 0.5], "alpha 1.0, not 0.5"),
        (["--per", "batch"], "per example, not batch"),
        (["--batch-size", 32], "batch_size 64, not 32"),
        (["--devices", 4], "devices 2, not 4"),
        (["--epochs", 1], "no checkpoint of 1 to 1 epochs"),
    ],
    ids=str,
)
def test_resume_refuses_another_run(example, monkeypatch, capsys, two_epochs, options, expected):
    before = (two_epochs / "metrics.csv").read_bytes()
    options = (*options, "--resume", "--out", two_epochs)
    assert expected in refusal(example, monkeypatch, capsys, *options)
    assert (two_epochs / "metrics.csv").read_bytes() == before


def test_missing_files_name_the_package(example, monkeypatch, capsys, tmp_path):
    options = ("--dataset", "fashion-mnist", "--data-dir", tmp_path, "--out", tmp_path / "out")
    message = refusal(example, monkeypatch, capsys, *options)
    assert "apt install dataset-fashion-mnist" in message and str(tmp_path) in message
    assert not (tmp_path / "out").exists()


def test_example_stays_short():
    assert len(EXAMPLE.read_text().splitlines()) < 250
