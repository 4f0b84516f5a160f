"""Measures what mixing changes when labels are wrong, and under adversarial attacks.

    python examples/label_noise.py
    python examples/label_noise.py --dataset fashion-mnist --jobs 2

On two CPU cores the first command takes up to four minutes, the second 13. Each prints a table and
leaves results.csv and results.png in runs/label_noise/DATASET. To continue a run that was stopped,
start the same command again.

Some of the training labels are made wrong, and a network learns from them with and without mixing,
as in table 2 of mixup's paper (Zhang et al. 2017, section 3.4, https://arxiv.org/abs/1710.09412).
For each share of wrong labels and each mixer, the table has the mean and the standard deviation of

- the test error of the best epoch and of the last one,
- the share of the wrong labels that are memorised: the network predicts them after the last epoch,
- the test error under FGSM attacks (Goodfellow et al. 2014) of three sizes.

For orientation it also has the paper's error after the last epoch. The paper trains a PreAct
ResNet-18 on CIFAR-10, with alpha 8 for 20 % wrong labels and alpha 32 for 50 and 80 %. A seed has
the same wrong labels, first parameters and batches for every mixer.

Digits, in percent: test error after the last epoch, memorised labels, and test error under FGSM of
size 0.1, for different shares of wrong labels (means of 5 seeds, jax 0.10.2):

| mixer     | error at 0 % | 20 % | 50 % | 80 % | memorised at 20 % | 50 % | 80 %  | FGSM at 0 % |
|-----------|--------------|------|------|------|-------------------|------|-------|-------------|
| no mixing | 2.2          | 16.2 | 44.4 | 78.8 | 99.9              | 99.9 | 100.0 | 53.5        |
| MixUp 1   | 1.9          | 8.0  | 32.3 | 75.9 | 68.5              | 79.4 | 91.7  | 68.1        |
| MixUp 8   | 2.4          | 4.7  | 20.2 | 71.2 | 18.0              | 30.4 | 59.0  | 73.2        |
| CutMix 1  | 1.8          | 4.3  | 19.7 | 69.5 | 31.7              | 50.3 | 77.4  | 51.4        |
| either    | 2.2          | 4.9  | 24.6 | 74.0 | 46.6              | 61.8 | 83.6  | 54.4        |

With wrong labels every mixer has a smaller error than no mixing, and memorises less. With clean
labels the error hardly changes. On clean digits FGSM fools networks trained with MixUp more often
than networks trained without mixing, and networks trained with CutMix about as often.

The same for 5,000 training images of Fashion-MNIST (`--noises 0 20 50`):

| mixer     | error at 0 % | 20 % | 50 % | memorised at 20 % | 50 % | FGSM at 0 % |
|-----------|--------------|------|------|-------------------|------|-------------|
| no mixing | 15.3         | 24.2 | 49.6 | 100.0             | 97.2 | 91.3        |
| MixUp 1   | 15.4         | 22.7 | 46.0 | 79.4              | 81.7 | 88.2        |
| MixUp 8   | 16.6         | 21.6 | 35.9 | 38.0              | 36.8 | 89.2        |
| CutMix 1  | 15.3         | 18.1 | 31.3 | 45.6              | 48.2 | 90.1        |
| either    | 15.3         | 19.5 | 37.4 | 60.4              | 62.3 | 88.8        |

The errors of the best epochs differ by less than 1.5 points between the mixers: with early stopping
a network without mixing is about as good.
"""

import argparse
import csv
import gzip
import itertools
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import jaxmix

NOISES = (0, 20, 50, 80)
MIXERS = {
    "no mixing": jaxmix.RandomApply(jaxmix.MixUp(), prob=0.0),
    "MixUp 1": jaxmix.MixUp(1.0),
    "MixUp 8": jaxmix.MixUp(8.0),
    "CutMix 1": jaxmix.CutMix(1.0),
    "either": jaxmix.RandomChoice((jaxmix.CutMix(1.0), jaxmix.MixUp(1.0))),
}
LOOKS = ("black", "o"), ("#56b4e9", "s"), ("#0072b2", "D"), ("#d55e00", "^"), ("#009e73", "v")
PAPER = {("no mixing", 20): 16.6, ("no mixing", 50): 44.6, ("no mixing", 80): 73.9}
PAPER |= {("MixUp 8", 20): 6.4, ("MixUp 8", 50): 12.7, ("MixUp 8", 80): 30.9}
SIZES = (0.02, 0.05, 0.1)
FIGURES = ("best", "last", "memorised", *(f"fgsm_{size}" for size in SIZES))
COLUMNS = ("dataset", "epochs", "noise", "mixer", "seed", *FIGURES)
BATCH = 64
optimizer = optax.adam(1e-3)
cross_entropy = optax.softmax_cross_entropy_with_integer_labels


class Network(nn.Module):
    """Two hidden layers of 256 units."""

    @nn.compact
    def __call__(self, images):
        """Maps float32[B, H, W, 1] to logits float32[B, 10]."""
        x = images.reshape(len(images), -1)
        for width in (256, 256):
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(10)(x)


def logits_of(params, images) -> jax.Array:
    """The logits float32[B, 10] of a network with these parameters."""
    return jnp.asarray(Network().apply(params, images))


def read_idx(path):
    """Reads a gzipped IDX file: two zeros, a type, the rank, the shape, and uint8 values."""
    if not path.exists():
        remedy = "apt install dataset-fashion-mnist (Debian, Ubuntu, Colab), or set --data-dir"
        raise ValueError(f"{path} is missing: {remedy}")
    content = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(content, ">i4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + shape.nbytes).reshape(shape)


def load_data(dataset, folder):
    """Training set and test set, each of images float32[N, H, W, 1] and labels int32[N]."""
    if dataset == "digits":
        images, labels = load_digits(return_X_y=True)
        images = (images / 16).astype(np.float32).reshape(-1, 8, 8, 1)
        arrays = images, labels.astype(np.int32)
        split = train_test_split(*arrays, test_size=0.2, stratify=labels, random_state=0)
        return split[::2], split[1::2]
    arrays = []
    for part in ("train", "t10k"):
        images = read_idx(folder / f"{part}-images-idx3-ubyte.gz")[:5000, ..., None]
        labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz")[:5000]
        arrays += [images.astype(np.float32) / 255, labels.astype(np.int32)]
    return arrays[:2], arrays[2:]


def spoil(generator, labels, noise):
    """Replaces `noise` % of the labels by random other classes; also returns which are wrong."""
    wrong = np.zeros(len(labels), bool)
    wrong[generator.permutation(len(labels))[: round(len(labels) * noise / 100)]] = True
    others = (labels + generator.integers(1, 10, len(labels))) % 10
    return np.where(wrong, others, labels).astype(np.int32), wrong


@jax.jit
def train_epoch(mixer, keys, states, images, labels, batches):
    """Trains all S seeds for an epoch: keys [S], labels [S, N], batches int[S, steps, BATCH]."""

    def one_seed(key, state, labels, batches):
        def step(state, inputs):
            number, rows = inputs
            params, moments = state
            plan = mixer.plan(jax.random.fold_in(key, number), images[rows].shape)
            mixed = plan.images(images[rows])

            def loss_fn(params):
                logits = logits_of(params, mixed)
                return plan.loss(cross_entropy, logits, labels[rows]).mean()

            updates, moments = optimizer.update(jax.grad(loss_fn)(params), moments)
            return (optax.apply_updates(params, updates), moments), None

        return jax.lax.scan(step, state, (jnp.arange(len(batches)), batches))[0]

    return jax.vmap(one_seed)(keys, states, labels, batches)


@jax.jit
def predict(params, images):
    """int[S, N]: the classes of images [N, ...] that the network of each seed predicts."""
    return jax.vmap(lambda params: logits_of(params, images).argmax(-1))(params)


@jax.jit
def fgsm(params, images, labels, size):
    """int[S, N]: the same, of images attacked through each network; `size` is a share of white."""

    def one_seed(params):
        def loss_fn(images):
            return cross_entropy(logits_of(params, images), labels).sum()

        moved = attacked(images, jax.grad(loss_fn)(images), size)
        return logits_of(params, moved).argmax(-1)

    return jax.vmap(one_seed)(params)


def attacked(images, gradient, size):
    """Moves each pixel by `size` up its gradient, but not beyond black or white."""
    return jnp.clip(images + size * jnp.sign(gradient), 0, 1)


def run_cell(dataset, folder, epochs, noise, name, seeds):
    """Trains with one mixer on one share of wrong labels; returns a row for each seed."""
    (images, labels), (test_images, test_labels) = load_data(dataset, folder)
    spoilt = [spoil(np.random.default_rng((seed, noise)), labels, noise) for seed in seeds]
    given, wrong = (np.stack(parts) for parts in zip(*spoilt, strict=True))
    keys = jax.vmap(jax.random.key)(jnp.array(seeds, jnp.uint32))
    init_keys, mix_keys = (jax.vmap(jax.random.fold_in, (0, None))(keys, i) for i in range(2))
    params = jax.vmap(Network().init, (0, None))(init_keys, images[:1])
    states = params, jax.vmap(optimizer.init)(params)
    errors, steps = [], len(images) // BATCH
    for epoch in range(epochs):
        orders = [np.random.default_rng((seed, epoch)).permutation(len(images)) for seed in seeds]
        batches = np.stack(orders)[:, : steps * BATCH].reshape(len(seeds), steps, BATCH)
        epoch_keys = jax.vmap(jax.random.fold_in, (0, None))(mix_keys, epoch)
        states = train_epoch(MIXERS[name], epoch_keys, states, images, given, batches)
        errors.append(np.mean(predict(states[0], test_images) != test_labels, axis=1))
    learnt = (np.asarray(predict(states[0], images)) == given) & wrong
    memorised = learnt.sum(1) / np.maximum(wrong.sum(1), 1)
    fooled = [
        np.mean(fgsm(states[0], test_images, test_labels, size) != test_labels, axis=1)
        for size in SIZES
    ]
    found = np.stack([np.min(errors, axis=0), errors[-1], memorised, *fooled], axis=1)
    cell = dataset, epochs, noise, name
    return [
        dict(zip(COLUMNS, (*cell, seed, *(f"{100 * x:.4f}" for x in row)), strict=True))
        for seed, row in zip(seeds, found, strict=True)
    ]


def read_rows(path, args):
    """Reads the rows that an earlier run has left, which must be of the same experiment."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        same = row["dataset"] == args.dataset and int(row["epochs"]) == args.epochs
        if not same or row["mixer"] not in MIXERS:
            found = f"{row['dataset']}, {row['epochs']} epochs, {row['mixer']}"
            raise ValueError(f"{path} is of another experiment ({found}): give another --out")
    return rows


def write_rows(path, rows):
    """Writes all rows; if it is interrupted, the file stays as it was."""
    unfinished = path.with_suffix(".partial")
    with open(unfinished, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(sorted(rows, key=place))
    unfinished.replace(path)


def place(row):
    """The place of a row in the file, which does not depend on the order of the runs."""
    return int(row["noise"]), list(MIXERS).index(row["mixer"]), int(row["seed"])


def missing_cells(rows, noises, seeds):
    """Yields what is still to be run: share of wrong labels, mixer, and the seeds to run."""
    done = {(int(row["noise"]), row["mixer"], int(row["seed"])) for row in rows}
    for noise, name in itertools.product(noises, MIXERS):
        missing = [seed for seed in range(seeds) if (noise, name, seed) not in done]
        if missing:
            yield noise, name, missing


def of_cell(rows, noise, name, seeds):
    """float[seeds, figures]: the figures of a share of wrong labels and a mixer, in percent."""
    chosen = [
        [float(row[figure]) for figure in FIGURES]
        for row in rows
        if (int(row["noise"]), row["mixer"]) == (noise, name) and int(row["seed"]) < seeds
    ]
    return np.array(chosen)


def table(rows, noises, seeds):
    """Formats means and standard deviations, in percent, as a Markdown table."""
    head = ["wrong labels", "mixer", "best epoch", "last epoch", "last, paper", "memorised"]
    head += [f"FGSM {size}" for size in SIZES]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for noise, name in itertools.product(noises, MIXERS):
        figures = of_cell(rows, noise, name, seeds)
        cells = [
            f"{m:.1f} ± {s:.1f}"
            for m, s in zip(figures.mean(0), figures.std(0, ddof=min(1, seeds - 1)), strict=True)
        ]
        cells[2] = cells[2] if noise else "-"
        cells.insert(2, str(PAPER.get((name, noise), "-")))
        lines.append("| " + " | ".join([f"{noise} %", name, *cells]) + " |")
    return "\n".join(lines)


def plot(path, rows, noises, seeds):
    """Draws error, memorised labels, and error under FGSM over the share of wrong labels."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    figure.suptitle(f"{rows[0]['dataset']}; error bars: standard deviation over seeds ({seeds})")
    panels = {
        "last": "test error after the last epoch, %",
        "memorised": "memorised wrong labels, %",
    }
    panels[FIGURES[-1]] = f"test error under FGSM of size {SIZES[-1]}, %"
    for axes, (column, label) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        shown = [noise for noise in noises if noise or column != "memorised"]
        for name, (colour, marker) in zip(MIXERS, LOOKS, strict=True):
            cells = [of_cell(rows, n, name, seeds)[:, FIGURES.index(column)] for n in shown]
            look = {"color": colour, "marker": marker, "capsize": 3, "label": name}
            spread = [cell.std(ddof=min(1, seeds - 1)) for cell in cells]
            axes.errorbar(shown, [c.mean() for c in cells], spread, **look)
        axes.set(xlabel="wrong training labels, %", ylabel=label)
    figure.axes[0].legend()
    figure.savefig(path)


def main():
    """Runs what is missing, then prints the table and draws the plot."""
    parser = argparse.ArgumentParser(
        description=str(__doc__).partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--dataset", choices=("digits", "fashion-mnist"), default="digits", help="data set")
    folder, out = Path("/usr/share/datasets/fashion-mnist"), "runs/label_noise"
    add("--data-dir", type=Path, default=folder, help="folder of the files of Fashion-MNIST")
    add("--noises", type=int, nargs="+", default=NOISES, help="shares of wrong labels, in percent")
    add("--seeds", type=int, default=5, help="number of runs of each mixer")
    add("--epochs", type=int, default=150, help="epochs of each run")
    add("--jobs", type=int, default=1, help="processes that share the work")
    text = f"folder for the results (default: {out}/DATASET)"
    add("--out", type=Path, default=argparse.SUPPRESS, help=text)
    args = parser.parse_args()
    for name in ("seeds", "epochs", "jobs"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(args, name)}")
    if not set(args.noises) <= set(range(100)):
        parser.error(f"--noises must be from 0 to 99, got {args.noises}")
    args.out = getattr(args, "out", Path(out) / args.dataset)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "results.csv"
    try:
        load_data(args.dataset, args.data_dir)
        rows = read_rows(path, args)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    cells = list(missing_cells(rows, args.noises, args.seeds))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.jobs, mp_context=context) as pool:
        how = args.dataset, args.data_dir, args.epochs
        running = [pool.submit(run_cell, *how, *cell) for cell in cells]
        for finished in tqdm(as_completed(running), total=len(cells), unit="cell"):
            rows += finished.result()
            write_rows(path, rows)
    print(table(rows, args.noises, args.seeds))
    plot(args.out / "results.png", rows, args.noises, args.seeds)


if __name__ == "__main__":
    main()
