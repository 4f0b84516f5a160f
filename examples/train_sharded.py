"""Trains a Flax NNX network on a mesh: one program for one device, many devices and many hosts.

    python examples/train_sharded.py
    python examples/train_sharded.py --devices 4 --accumulate 2

Metrics and checkpoint are in runs/train_sharded. `--epochs 80 --resume` continues the run, on as
many devices and processes as you like. Test accuracy, and time on two CPU cores:

| `--dataset`     | `--epochs` | test accuracy                 | time          |
|-----------------|------------|-------------------------------|---------------|
| `digits`        | 50         | 0.975 to 0.983 (seeds 0 to 2) | half a minute |
| `fashion-mnist` | 1          | 0.889                         | three minutes |

To train in two processes, on one machine or on two that share the folder --out, run

    python examples/train_sharded.py --coordinator localhost:9876 --num-processes 2 --process-id 0 &
    python examples/train_sharded.py --coordinator localhost:9876 --num-processes 2 --process-id 1

On a TPU pod or under SLURM the hosts find each other: run the same command on each of them, with
--distributed.

ResNet-18 on one H200 with `--network resnet18 --dataset fashion-mnist --batch-size 256`, after 11
epochs, measured with the pairing `Flip` (means of seeds 0 to 2, standard deviations up to 0.003):

| `--mixer`     | none  | mixup | cutmix | both  |
|---------------|-------|-------|--------|-------|
| test accuracy | 0.928 | 0.931 | 0.935  | 0.934 |

For CIFAR-10 download the binary files (https://www.cs.toronto.edu/~kriz/cifar.html) and give their
folder: `--dataset cifar-10 --data-dir cifar-10-batches-bin`. No full run of it was made yet.
"""

import argparse
import gzip
import hashlib
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import jaxmix

# A run can only be resumed with the same settings. The numbers of devices and processes may change.
SETTINGS = ("dataset", "network", "mixer", "alpha", "per", "batch_size", "accumulate", "seed")
COLUMNS = "epoch,train_loss,train_accuracy,test_loss,test_accuracy"
cross_entropy = optax.softmax_cross_entropy_with_integer_labels


def read(path, remedy):
    """Reads a file that must have been downloaded or installed before."""
    if not path.exists():
        raise ValueError(f"{path} is missing: {remedy}")
    return path.read_bytes()


def read_cifar(path):
    """Reads images uint8[N, 32, 32, 3] and labels int32[N] from a binary file of CIFAR-10."""
    content = read(path, "set --data-dir to the folder unpacked from cifar-10-binary.tar.gz")
    if len(content) % 3073:
        raise ValueError(f"{path} is cut short: its size is not a multiple of 3073 bytes")
    records = np.frombuffer(content, np.uint8).reshape(-1, 3073)  # a label, then three planes
    planes = records[:, 1:].reshape(-1, 3, 32, 32)
    return np.moveaxis(planes, 1, -1), records[:, 0].astype(np.int32)


def read_idx(path):
    """Reads a gzipped IDX file: two zeros, a type, the rank, the shape, and uint8 values."""
    remedy = "apt install dataset-fashion-mnist (Debian, Ubuntu, Colab), or set --data-dir"
    content = gzip.decompress(read(path, remedy))
    shape = np.frombuffer(content, ">i4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + shape.nbytes).reshape(shape)


def load_data(dataset, folder):
    """Training set and test set, each of images uint8[N, H, W, C] and labels int32[N]."""
    if dataset == "digits":
        images, labels = load_digits(return_X_y=True)
        images = np.round(images * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
        arrays = images, labels.astype(np.int32)
        split = train_test_split(*arrays, test_size=0.2, stratify=labels, random_state=0)
        return split[::2], split[1::2]
    if dataset == "cifar-10":
        parts = [read_cifar(folder / f"data_batch_{i}.bin") for i in range(1, 6)]
        train = tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return train, read_cifar(folder / "test_batch.bin")
    arrays = []
    for part in ("train", "t10k"):
        images = read_idx(folder / f"{part}-images-idx3-ubyte.gz")[..., None]
        labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz")
        arrays += [images, labels.astype(np.int32)]
    return arrays[:2], arrays[2:]


class Small(nnx.Module):
    """Two pooled convolutions and two dense layers."""

    def __init__(self, height, width, channels, *, rngs):
        """Draws the parameters, for images of this size."""
        self.conv1 = nnx.Conv(channels, 32, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(32, 64, (3, 3), rngs=rngs)
        self.dense1 = nnx.Linear(64 * (height // 4) * (width // 4), 128, rngs=rngs)
        self.dense2 = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, images):
        """Maps float32[B, H, W, C] to logits float32[B, 10]."""
        x = nnx.max_pool(nnx.relu(self.conv1(images)), (2, 2), strides=(2, 2))
        x = nnx.max_pool(nnx.relu(self.conv2(x)), (2, 2), strides=(2, 2))
        x = nnx.relu(self.dense1(x.reshape(len(x), -1)))
        return self.dense2(x)


class Block(nnx.Module):
    """Two convolutions and a skip connection (He et al. 2015, figure 2)."""

    def __init__(self, inputs, outputs, stride, *, rngs):
        """Draws the parameters; the skip connection is a convolution where the size changes."""
        conv = partial(nnx.Conv, use_bias=False, rngs=rngs)
        self.conv1, self.norm1 = conv(inputs, outputs, (3, 3), stride), norm(outputs, rngs)
        self.conv2, self.norm2 = conv(outputs, outputs, (3, 3)), norm(outputs, rngs)
        resized = (inputs, stride) != (outputs, 1)
        self.skip = conv(inputs, outputs, (1, 1), stride) if resized else None

    def __call__(self, x):
        """Maps float32[B, H, W, inputs] to float32[B, H / stride, W / stride, outputs]."""
        skip = x if self.skip is None else self.skip(x)
        x = self.norm2(self.conv2(nnx.relu(self.norm1(self.conv1(x)))))
        return nnx.relu(x + skip)


class ResNet18(nnx.Module):
    """ResNet-18 for small images, without the first pooling (He et al. 2015, section 4.2).

    It normalises groups of channels instead of the batch, so that the result for an image depends
    neither on the rest of the batch nor on the number of devices.
    """

    def __init__(self, height, width, channels, *, rngs):
        """Draws the parameters, which do not depend on the number of pixels."""
        self.conv = nnx.Conv(channels, 64, (3, 3), use_bias=False, rngs=rngs)
        self.norm = norm(64, rngs)
        sizes = [(64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)]
        pairs = [(size, (size[1], size[1], 1)) for size in sizes]
        self.blocks = nnx.Sequential(*[Block(*size, rngs=rngs) for pair in pairs for size in pair])
        self.dense = nnx.Linear(512, 10, rngs=rngs)

    def __call__(self, images):
        """Maps float32[B, H, W, C] to logits float32[B, 10]."""
        x = self.blocks(nnx.relu(self.norm(self.conv(images))))
        return self.dense(x.mean((1, 2)))


def norm(channels, rngs):
    """Normalisation in 32 groups of channels (Wu and He 2018)."""
    return nnx.GroupNorm(channels, num_groups=32, rngs=rngs)


NETWORKS = {"small": Small, "resnet18": ResNet18}


def create(key, network, size):
    """Makes a network and its optimizer, replicated over the mesh."""
    rate = optax.warmup_exponential_decay_schedule(0.0, 3e-3, 100, 1000, 0.1, end_value=3e-4)

    @nnx.jit
    def initialise(key):
        model = NETWORKS[network](*size, rngs=nnx.Rngs(key))
        return model, nnx.Optimizer(model, optax.adam(rate), wrt=nnx.Param)

    return initialise(key)


def make_mixer(name, alpha, per):
    """The mixer that --mixer names; "none" runs the same train step without mixing."""
    cutmix, mixup = jaxmix.CutMix(alpha, per=per), jaxmix.MixUp(alpha, per=per)
    both = jaxmix.RandomChoice((cutmix, mixup), per=per)
    none = jaxmix.RandomApply(mixup, prob=0.0)
    return {"none": none, "cutmix": cutmix, "mixup": mixup, "both": both}[name]


@nnx.jit
def train_step(model, optimizer, mixer, key, images, labels):
    """Mixes a batch, uint8[K, rows, H, W, C], and learns from it in K micro-batches.

    One plan is drawn for the whole batch, and its slices mix the micro-batches. K therefore changes
    the memory that a step needs, but not the mixed images. Returns the mean loss and accuracy.
    """
    micro_batches, rows = labels.shape
    plan = mixer.plan(key, (micro_batches * rows, *images.shape[2:]))
    parts = [plan[k * rows : (k + 1) * rows] for k in range(micro_batches)]
    graph, params = nnx.split(model)

    @partial(jax.grad, has_aux=True)
    def gradients(params, plan, images, labels):
        logits = nnx.merge(graph, params)(to_float(plan.images(images)))
        loss = plan.loss(cross_entropy, logits, labels).mean()
        return loss, (loss, plan.accuracy(logits, labels).mean())

    def accumulate(total, part):
        return jax.tree.map(jnp.add, total, gradients(params, *part)), None

    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts), images, labels
    zeros = jax.tree.map(jnp.zeros_like, (params, (jnp.float32(0), jnp.float32(0))))
    total, _ = jax.lax.scan(accumulate, zeros, batch)
    grads, metrics = jax.tree.map(lambda x: x / micro_batches, total)
    optimizer.update(model, grads)
    return metrics


@nnx.jit
def eval_step(model, images, labels):
    """Sums of losses and of correct predictions; a label of -1 is padding."""
    logits = model(to_float(images))
    losses = jnp.where(labels >= 0, cross_entropy(logits, labels), 0)
    return losses.sum(), (logits.argmax(-1) == labels).sum()


def to_float(images):
    """Scales uint8 pixels to [0, 1] on the devices, so that only uint8 is sent there."""
    return images.astype(jnp.float32) / 255


def on_mesh(array, rows):
    """Puts `array[rows]` on the mesh, split along the last axis of `rows`.

    Each process reads only the rows of its own devices.
    """
    split = PartitionSpec(*[None] * (rows.ndim - 1), "data")
    sharding = NamedSharding(jax.sharding.get_mesh(), split)

    def read(index):
        return array[rows[index[: rows.ndim]]]

    return jax.make_array_from_callback((*rows.shape, *array.shape[1:]), sharding, read)


def train_epoch(model, optimizer, mixer, key, data, batches, bar):
    """Trains on batches of row numbers, int[steps, K, rows]; returns mean loss and accuracy."""
    seen = []
    for step, rows in enumerate(batches):
        step_key = jax.random.fold_in(key, step)
        batch = [on_mesh(array, rows) for array in data]
        seen.append(train_step(model, optimizer, mixer, step_key, *batch))
        if jax.default_backend() == "cpu":  # Simulated devices can hang if steps are queued.
            seen[-1] = jax.device_get(seen[-1])
            bar.set_postfix_str("loss {:.3f}, accuracy {:.3f} (mixed)".format(*seen[-1]), False)
        bar.update()
    return np.mean(jax.device_get(seen), axis=0).tolist()


def evaluate(model, data, rows):
    """Mean loss and accuracy; the last batch is padded, and each example counts once."""
    count, padding = len(data[1]), -len(data[1]) % rows
    images = np.pad(data[0], [(0, padding), (0, 0), (0, 0), (0, 0)])
    labels = np.pad(data[1], (0, padding), constant_values=-1)
    sums = np.zeros(2)
    for batch in np.arange(len(labels)).reshape(-1, rows):
        sums += jax.device_get(eval_step(model, on_mesh(images, batch), on_mesh(labels, batch)))
    return (sums / count).tolist()


def save(manager, args, state, history):
    """Writes the CSV file, then the checkpoint; every process must call it."""
    if jax.process_index() == 0:
        unfinished = args.out / "metrics.csv.partial"
        np.savetxt(unfinished, history, "%.6g", ",", header=COLUMNS, comments="")
        unfinished.replace(args.out / "metrics.csv")
    settings = {name: getattr(args, name) for name in SETTINGS}
    run = ocp.args.JsonSave({"settings": settings, "history": history})
    state = ocp.args.StandardSave(nnx.to_pure_dict(state))
    manager.save(len(history), args=ocp.args.Composite(state=state, run=run))


def restore(manager, args, state):
    """State and history after the last finished epoch; ValueError if settings differ."""
    epoch = manager.latest_step() or 0
    if not 0 < epoch <= args.epochs:
        raise ValueError(f"--resume: {args.out} has no checkpoint of 1 to {args.epochs} epochs")
    run = manager.restore(epoch, args=ocp.args.Composite(run=ocp.args.JsonRestore())).run
    for name, was in run["settings"].items():
        if was != getattr(args, name):
            raise ValueError(f"--resume: {args.out} has {name} {was}, not {getattr(args, name)}")
    items = ocp.args.Composite(state=ocp.args.StandardRestore(nnx.to_pure_dict(state)))
    nnx.replace_by_pure_dict(state, manager.restore(epoch, args=items).state)
    return state, run["history"]


def parse_args():
    """Reads the command line, and checks it as far as possible without devices and data."""
    parser = argparse.ArgumentParser(
        description=str(__doc__).partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--dataset", choices=("digits", "fashion-mnist", "cifar-10"), default="digits", help="data")
    add("--network", choices=tuple(NETWORKS), default="small", help="network to train")
    folder = Path("/usr/share/datasets/fashion-mnist")
    add("--data-dir", type=Path, default=folder, help="folder of Fashion-MNIST or CIFAR-10")
    mixers, granularities = ("none", "cutmix", "mixup", "both"), ("example", "pair", "batch")
    add("--mixer", choices=mixers, default="both", help="both: CutMix or MixUp, at random")
    add("--alpha", type=float, default=1.0, help="lambda follows Beta(alpha, alpha)")
    add("--per", choices=granularities, default="example", help="granularity of the draws")
    add("--epochs", type=int, default=50, help="epochs in total, including earlier runs")
    add("--batch-size", type=int, default=64, help="examples on all devices, in all micro-batches")
    add("--accumulate", type=int, default=1, help="micro-batches in a batch")
    add("--seed", type=int, default=0, help="random seed")
    out = Path("runs/train_sharded")
    add("--out", type=Path, default=out, help="folder for the metrics and the checkpoint")
    add("--resume", action="store_true", help="continue the run in --out instead of replacing it")
    add("--devices", type=int, default=2, help="devices that each process simulates on a CPU")
    add("--distributed", action="store_true", help="run as a process of a TPU pod or SLURM job")
    add("--coordinator", metavar="HOST:PORT", help="address of process 0")
    add("--num-processes", type=int, help="number of processes, with --coordinator")
    add("--process-id", type=int, help="number of this process, from 0, with --coordinator")
    args = parser.parse_args()
    for name in ("epochs", "batch_size", "accumulate", "devices"):
        if getattr(args, name) < 1:
            option = "--" + name.replace("_", "-")
            parser.error(f"{option} must be at least 1, got {getattr(args, name)}")
    if not 0 <= args.seed < 2**32:
        parser.error(f"--seed must be from 0 to 2**32 - 1, got {args.seed}")
    if args.accumulate > 1 and args.batch_size % (2 * args.accumulate):
        parser.error("--batch-size must be a multiple of 2 x --accumulate: rows are mixed in pairs")
    among = [args.coordinator, args.num_processes, args.process_id]
    if any(x is None for x in among) and any(x is not None for x in among):
        parser.error("--coordinator, --num-processes and --process-id go together")
    if args.coordinator is not None:
        if args.distributed:
            parser.error("--coordinator and --distributed exclude each other")
        if not args.coordinator.rpartition(":")[2].isdecimal():
            parser.error(f"--coordinator must be HOST:PORT, got {args.coordinator!r}")
        if not 0 <= args.process_id < args.num_processes:
            parser.error("--process-id must be from 0 to --num-processes - 1")
    return args, parser.error


def start(args):
    """Connects the processes, if there are several, and makes a mesh of all their devices."""
    jax.config.update("jax_num_cpu_devices", args.devices)
    if args.coordinator is not None:
        jax.distributed.initialize(args.coordinator, args.num_processes, args.process_id)
    elif args.distributed:
        jax.distributed.initialize()
    if jax.local_device_count() * jax.process_count() != jax.device_count():
        raise ValueError("all processes must have the same number of devices: see --devices")
    jax.set_mesh(jax.make_mesh((jax.device_count(),), ("data",)))
    # With different arguments the processes would draw different plans and read different data.
    shared = sorted((name, str(x)) for name, x in vars(args).items() if name != "process_id")
    digest = np.frombuffer(hashlib.sha256(repr(shared).encode()).digest(), np.uint8)
    try:
        multihost_utils.assert_equal(digest)
    except AssertionError:
        raise ValueError("all processes must be started with the same arguments") from None


def main():
    """Trains, saves after each epoch and prints the test accuracy."""
    args, fail = parse_args()
    try:
        start(args)
    except (ValueError, RuntimeError) as error:
        fail(str(error))
    root_key = jax.random.key(args.seed)
    init_key, mix_key = (jax.random.fold_in(root_key, i) for i in range(2))
    rows, devices = args.batch_size // args.accumulate, jax.device_count()
    try:
        mixer = make_mixer(args.mixer, args.alpha, args.per)
        train, test = load_data(args.dataset, args.data_dir)
        steps = len(train[1]) // args.batch_size
        if not steps or rows % devices:
            raise ValueError(
                f"--batch-size must be up to {len(train[1])} and a multiple of {devices} devices "
                f"x {args.accumulate} micro-batches"
            )
        options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
        options.create = not args.resume
        manager = ocp.CheckpointManager(args.out.resolve() / "checkpoints", options=options)
        size = np.shape(train[0])[1:]
        model, optimizer = create(init_key, args.network, size)
        state, history = nnx.state((model, optimizer)), []
        if args.resume:
            state, history = restore(manager, args, state)
            nnx.update((model, optimizer), state)
    except (ValueError, EOFError, OSError) as error:
        fail(str(error))
    for epoch in () if args.resume else manager.all_steps():
        manager.delete(epoch)

    first = jax.process_index() == 0
    bar = tqdm(total=args.epochs * steps, initial=len(history) * steps, disable=not first)
    for epoch in range(len(history) + 1, args.epochs + 1):
        # The order depends only on seed and epoch: all processes and a resumed run read the same.
        order = np.random.default_rng((args.seed, epoch)).permutation(len(train[1]))
        batches = order[: steps * args.batch_size].reshape(steps, args.accumulate, rows)
        key = jax.random.fold_in(mix_key, epoch)
        trained = train_epoch(model, optimizer, mixer, key, train, batches, bar)
        history.append([epoch, *trained, *evaluate(model, test, rows)])
        save(manager, args, nnx.state((model, optimizer)), history)
        bar.set_description(f"epoch {epoch}, test accuracy {history[-1][-1]:.3f}")
    bar.close()
    if first:
        print(f"test accuracy {history[-1][-1]:.3f}")


if __name__ == "__main__":
    main()
