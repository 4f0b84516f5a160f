"""Checks which laws of mixing hold in jaxmix and in other libraries.

    pip install -e ".[bench]" && python -m tests.conformance

Prints a table in Markdown, then one line for each break: what was found, and how to reproduce it.
A documented choice, such as one draw for a whole batch, is not a break. Takes about three minutes
on two CPU cores. The exit code is 1 if jaxmix itself breaks a law or refuses an input.
"""

import argparse
import contextlib
import functools
import importlib.metadata
import itertools
import os
import sys
import typing
import warnings
from collections.abc import Callable

import ml_dtypes
import numpy as np
from scipy import stats
from tqdm import tqdm

EXTENTS = {8: (7, 5), 7: (8, 8), 16: (32, 32), 1: (5, 7)}  # For each batch size.
BOTH = ("CutMix", "MixUp")
MODES = tuple(f"{method} {mode}" for method in BOTH for mode in ("batch", "pair", "elem"))


class DoesNotApply(Exception):
    """Raised where a law is about something else, or where a library documents another choice."""


class Mixed(typing.NamedTuple):
    """The result of a call in NumPy, channels last, and the inputs as the call left them."""

    images: np.ndarray
    labels: np.ndarray
    inputs: tuple


# Each adapter imports its library and returns `mix(method, images, seed, **options)`. Image i has
# class i, so the labels of B images are [B, B].


def in_jax(call, array):
    """Wraps a call that takes arrays, which `array` makes. Only float64 turns 64 bits on."""
    import jax

    def mix(method, images, seed, **options):
        with jax.enable_x64(True) if images.dtype == np.float64 else contextlib.nullcontext():
            inputs = array(images), array(np.arange(len(images), dtype=np.int32))
            mixed, labels = call(method, *inputs, seed, **options)
            return Mixed(np.asarray(mixed), np.asarray(labels), tuple(map(np.asarray, inputs)))

    return mix


def jaxmix():
    import jax

    import jaxmix

    def call(method, images, ids, seed, alpha=1.0, smoothing=0.0, jit=False):
        both = jaxmix.CutMix(alpha), jaxmix.MixUp(alpha)
        mixer = dict(zip(BOTH, both, strict=True)).get(method, jaxmix.RandomChoice(both))
        mix = jaxmix.Mixer.__call__
        mix = jax.jit(mix, static_argnames="num_classes") if jit else mix
        options = {"num_classes": len(ids), "smoothing": smoothing}
        return mix(mixer, jax.random.key(seed), images, ids, **options)

    return in_jax(call, np.array)


def naive():
    import jax

    from .benchmarks.jax_peers import naive

    def call(method, images, ids, seed, jit=False):
        mix = jax.jit(naive, static_argnums=(0, 1, 2)) if jit else naive
        return mix(method.lower(), "example", len(ids), jax.random.key(seed), images, ids)

    return in_jax(call, jax.numpy.array)


def keras():
    os.environ["KERAS_BACKEND"] = "jax"
    import jax
    import keras

    def call(method, images, ids, seed, alpha=1.0):
        if images.dtype == np.uint8:
            raise DoesNotApply("the output has the dtype of the policy, a float, as documented")
        strength = {"factor": (alpha, alpha)} if method == "CutMix" else {"alpha": alpha}
        options = {"seed": seed, "dtype": str(images.dtype), "data_format": "channels_last"}
        layer = getattr(keras.layers, method)(**strength, **options)
        labels = jax.nn.one_hot(ids, len(ids), dtype=np.float32)
        mixed = layer({"images": images, "labels": labels}, training=True)
        return mixed["images"], mixed["labels"]

    return in_jax(call, jax.numpy.array)


def in_torch(call):
    """Wraps a call that takes tensors with the channels first."""
    import torch

    def tensor(images):
        images = np.moveaxis(images, -1, 1).copy()
        if images.dtype == ml_dtypes.bfloat16:
            return torch.from_numpy(images.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(images)

    def array(images):
        if images.dtype == torch.bfloat16:
            images = images.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return np.moveaxis(np.asarray(images), 1, -1)

    def mix(method, images, seed, **options):
        torch.manual_seed(seed)
        images, ids = tensor(images), torch.arange(len(images))
        mixed, labels = call(method, images, ids, seed, **options)
        return Mixed(array(mixed), np.asarray(labels), (array(images), ids.numpy()))

    return mix


def torchvision():
    from torchvision.transforms import v2

    def call(method, images, ids, seed, alpha=1.0):
        return getattr(v2, method)(alpha=alpha, num_classes=len(ids))(images, ids)

    return in_torch(call)


def timm():
    from timm.data import Mixup

    def call(method, images, ids, seed, alpha=1.0, smoothing=0.0):
        method, mode = method.split()
        alphas = {"mixup_alpha": 0.0, "cutmix_alpha": 0.0} | {f"{method.lower()}_alpha": alpha}
        np.random.seed(seed)  # timm draws from NumPy's global generator.
        options = {"num_classes": len(ids), "label_smoothing": smoothing}
        return Mixup(**alphas, mode=mode, **options)(images, ids)

    return in_torch(call)


def kornia():
    from kornia.augmentation import RandomCutMixV2, RandomMixUpV2

    def call(method, images, ids, seed):
        cut, keys = method == "CutMix", ["input", "class"]
        options = {"use_correct_lambda": True} if cut else {}
        transform = (RandomCutMixV2 if cut else RandomMixUpV2)(data_keys=keys, **options)
        mixed, triples = transform(images, ids)
        own, other, lam = triples.reshape(-1, 3, 1).numpy().swapaxes(0, 1)
        weight, classes = (lam if cut else 1 - lam), np.arange(len(ids))
        return mixed, weight * (own == classes) + (1 - weight) * (other == classes)

    return in_torch(call)


class Library(typing.NamedTuple):
    """A library, the options that its adapter has, and a note for readers of the table."""

    name: str
    load: Callable
    options: tuple
    methods: tuple = BOTH
    note: str = ""


LIBRARIES = (
    Library(
        *("jaxmix", jaxmix, ("alpha", "smoothing", "jit"), (*BOTH, "choice")),
        "The default pairing leaves the middle row of an odd batch unmixed, as documented.",
    ),
    Library("torchvision", torchvision, ("alpha",), note="Draws once per batch, as documented."),
    Library("timm", timm, ("alpha", "smoothing"), MODES),
    Library("Keras", keras, ("alpha",), note="Runs on JAX, with layers of the images' dtype."),
    Library(
        *("kornia", kornia, (), BOTH),
        "Returns two class ids and a lambda per row. They are combined as its documentation says, "
        "with use_correct_lambda=True. Its MixUp draws uniform lambdas, as documented.",
    ),
    Library("naive JAX", naive, ("jit",), note="Its alpha is 1, so lambda is hardly ever 0 or 1."),
)


class Column(typing.NamedTuple):
    """A method of a library. Without the library, `mix` is the ImportError."""

    library: Library
    method: str
    mix: Callable | ImportError

    def __call__(self, images, seed, **options):
        """Mixes images. Options that the adapter does not have are left out."""
        options = {name: options[name] for name in options if name in self.library.options}
        return self.mix(self.method, images, seed, **options)


# Each law takes a column and returns what is wrong, or None. A law may have several cases.

LAWS = {}


def law(name, *cases):
    """Registers a law under its name in the table."""

    def register(function):
        parts = {case: functools.partial(function, case=case) for case in cases}
        LAWS[name] = parts or {"": function}
        return function

    return register


def painted(rows):
    """Images: image i has the one-hot vector of i in every pixel."""
    eye = np.eye(rows, dtype=np.float32)[:, None, None]
    return np.broadcast_to(eye, (rows, *EXTENTS[rows], rows))


def noise(rows=8):
    """Random images of the same shape."""
    generator = np.random.default_rng(rows)
    return generator.normal(size=painted(rows).shape).astype(np.float32)


def bits(array):
    """The bits of an array, where NaN equals itself and -0.0 is not 0.0."""
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def same(first, second):
    """Compares the images and labels of two results bit for bit."""
    pairs = zip(first[:2], second[:2], strict=True)
    return all(np.array_equal(bits(one), bits(other)) for one, other in pairs)


@law("labels match pixels")
def labels_match_pixels(column):
    """An image's weight in the label is its share of the pixels."""
    errors, calls = [], []
    for rows, (height, width) in EXTENTS.items():
        # Some libraries refuse odd batches; another law reports that.
        with contextlib.suppress(Exception) if rows % 2 else contextlib.nullcontext():
            for seed in range(50):
                mixed = column(painted(rows), seed)
                errors.append(np.max(np.abs(mixed.images.mean((1, 2), float) - mixed.labels)))
                calls.append(f"{rows} images of {height} x {width}, seed {seed}")
    worst = np.argmax(errors)  # NaN counts as the largest.
    if not errors[worst] <= 1e-5:
        return f"weights are off by up to {errors[worst]:.2g} ({calls[worst]})"


@law("bits are kept")
def bits_are_kept(column):
    """CutMix copies bits, and so does MixUp at lambda 0 or 1. Hidden NaN and inf do not spread.

    The images differ in magnitude, so that a + (b - a) is not b. MixUp may round the last bits of a
    row with one label, because that row may be a blend of an image with itself.
    """
    images = noise() * 10 ** np.arange(8, dtype=np.float32)[:, None, None, None]
    images[1::2, :, 2:4], images[2::3, 1] = np.nan, np.inf
    cut = column.method.startswith("CutMix")
    leaks = changes = 0
    for seed in range(100):
        mixed = column(images, seed, alpha=1.0 if cut else 0.1)  # At 0.1 lambda is often 1.
        for row, (image, label) in enumerate(zip(mixed.images, mixed.labels, strict=True)):
            shown = images[label > 0]
            leaks += bool(np.any(~np.isfinite(image) & np.isfinite(shown).all(0)))
            if cut:
                equal = bits(image) == bits(images)
                changes += not (equal | equal[row]).all((1, 2, 3)).any()
            elif len(shown) == 1 and label.max() == 1:
                changes += not np.allclose(image, shown[0], 3e-7, 0, equal_nan=True)
    if leaks:
        return f"NaN or inf of an image with weight exactly 0 appears in {leaks} of 800 rows"
    return f"{changes} of 800 rows have bits that neither image has" if changes else None


@law("dtype in, dtype out", "float32", "bfloat16", "float16", "float64", "uint8")
def dtype_in_dtype_out(column, case):
    """Images keep their dtype. Integers are rounded to nearest: image i is values[i] everywhere."""
    values, errors = np.array([0, 255, 3, 100, 7, 200, 31, 64]), []
    images = np.ones_like(painted(8), case) * values.astype(case)[:, None, None, None]
    for seed in range(20):
        mixed = column(images, seed)
        if mixed.images.dtype != case:
            return f"the output is {mixed.images.dtype}"
        errors.append(mixed.images.mean((1, 2, 3), float) - mixed.labels.astype(float) @ values)
    worst = np.max(np.abs(errors))
    if case == "uint8" and not worst <= 0.5 + 1e-3:
        return f"the mean of an image is up to {worst:.3g} from the blend that its label describes"


@law("rows of labels sum to 1")
def rows_of_labels_sum_to_1(column):
    """Hard labels do, and so do smoothed ones where the library smooths."""
    calls = [(seed, smoothing) for seed in range(20) for smoothing in (0.0, 0.1)]
    sums = [column(painted(8), s, smoothing=e).labels.sum(1, float) for s, e in calls]
    worst = np.max(np.abs(np.array(sums) - 1))
    return None if worst <= 1e-5 else f"sums are off by up to {worst:.2g}"


@law("same key, same result")
def same_key_same_result(column):
    """A seed determines the images and the labels, bit for bit."""
    pairs = [(column(noise(), seed), column(noise(), seed)) for seed in range(5)]
    return None if all(same(*pair) for pair in pairs) else "two calls with one seed differ"


@law("nothing is mutated")
def nothing_is_mutated(column):
    """The caller's images and labels are as they were."""
    after = [column(noise(), seed).inputs for seed in range(5)]
    kept = [np.array_equal(x, noise()) and np.array_equal(y, np.arange(8)) for x, y in after]
    return None if all(kept) else "the caller's batch is overwritten"


@law("odd batches and a batch of one", "odd", "one")
def odd_batches_and_a_batch_of_one(column, case):
    """Both are accepted. An odd batch is mixed, and a single image stays as it is."""
    images = noise(7 if case == "odd" else 1)
    results = [column(images, seed) for seed in range(20)]
    changed = sum(not np.allclose(mixed.images, images, 1e-5) for mixed in results)
    if case == "odd":
        return None if changed else "nothing is mixed in 20 draws"
    changed += sum(not np.allclose(mixed.labels, 1, 1e-5) for mixed in results)
    return "a single image or its label changes" if changed else None


@law("law of lambda")
def law_of_lambda(column):
    """The weights in the labels of MixUp follow Beta(alpha, alpha).

    Only weights from 0.001 to 0.999 are tested: an image that is paired with itself has weight 1.
    """
    if not column.method.startswith("MixUp"):
        raise DoesNotApply
    images, ends = np.ones((256, 1, 1, 1), np.float32), np.array([1e-3, 1 - 1e-3])
    for alpha in (1.0, 0.2)[: 1 + ("alpha" in column.library.options)]:
        drawn, cdf = [], stats.beta(alpha, alpha).cdf
        for seed in range(2000):
            # Rows may share a weight, which is then one draw.
            weights = np.unique(column(images, seed, alpha=alpha).labels.diagonal().astype(float))
            drawn.extend(weights[(weights > ends[0]) & (weights < ends[1])])
            if len(drawn) > 10_000:
                break
        low, high = cdf(ends)
        pvalue = stats.kstest((cdf(drawn) - low) / (high - low), "uniform").pvalue
        if not pvalue > 1e-4:
            return f"p = {pvalue:.1g} (Kolmogorov-Smirnov, {len(drawn)} draws, alpha {alpha:g})"


@law("under jit")
def under_jit(column):
    """jax.jit does not change a bit."""
    if "jit" not in column.library.options:
        raise DoesNotApply
    pairs = [(column(noise(), seed), column(noise(), seed, jit=True)) for seed in range(5)]
    if not all(same(*pair) for pair in pairs):
        worst = [max(np.max(np.abs(one[i] - other[i])) for one, other in pairs) for i in (0, 1)]
        return f"images change by up to {worst[0]:.1g}, labels by up to {worst[1]:.1g}"


# Code that shows a break without this module.

REPRODUCTIONS = {
    ("Keras", "labels match pixels"): (
        "import numpy as np, keras; x = np.tile(np.eye(8)[:, None, None], (1, 8, 8, 1)); "
        "out = keras.layers.CutMix(seed=0)({'images': x, 'labels': np.eye(8)}, training=True); "
        "print(abs(np.mean(out['images'], (1, 2)) - out['labels']).max())"
    ),
    ("Keras", "bits are kept"): (
        "import numpy as np, keras; x = np.ones((512, 1, 1, 1)); x[::2] = np.nan; "
        "y = np.eye(2)[np.arange(512) % 2]; mixup = keras.layers.MixUp(alpha=0.1, seed=0); "
        "out = mixup({'images': x, 'labels': y}, training=True); "
        "print(np.isnan(out['images']).ravel()[out['labels'][:, 1] == 1].sum())"
    ),
    ("timm", "nothing is mutated"): (
        "import torch; from timm.data import Mixup; x = torch.rand(2, 3, 32, 32); "
        "mix = lambda a, m, x: Mixup(*a, mode=m, num_classes=2)(x, torch.arange(2)); "
        "print([(mix(a, m, y := x.clone()), (x - y).abs().max().item())[1] "
        "for a in ((0.0, 1.0), (1.0, 0.0)) for m in ('batch', 'pair', 'elem')])"
    ),
    ("timm", "dtype in, dtype out"): (
        "import torch; from timm.data import Mixup; x = torch.zeros(2, 1, 32, 32).byte(); "
        "x[1] = 255; options = {'num_classes': 2, 'label_smoothing': 0.0}; "
        "mix = lambda a, m: Mixup(*a, mode=m, **options)(x.clone(), torch.arange(2)); "
        "print([(x.float().mean((1, 2, 3)), 255 * y[:, 1]) for x, y in [mix(a, m) "
        "for a in ((0.0, 1.0), (1.0, 0.0)) for m in ('pair', 'elem')]])"
    ),
    ("naive JAX", "dtype in, dtype out"): (
        "import jax, jax.numpy as jnp; from tests.benchmarks.jax_peers import naive; "
        "x = jnp.array([0, 255], jnp.uint8)[:, None, None, None]; "
        "x, y = naive('mixup', 'example', 2, jax.random.key(4), x, jnp.arange(2)); "
        "print(x.ravel(), 255 * y[:, 1])"
    ),
    ("naive JAX", "under jit"): (
        "import jax, jax.numpy as jnp; from tests.benchmarks.jax_peers import naive; "
        "x = jax.random.normal(jax.random.key(1), (8, 7, 5, 3)); key = jax.random.key(4); "
        "mix = lambda method, key: naive(method, 'example', 8, key, x, jnp.arange(8)); "
        "both = lambda key: (mix('cutmix', key)[1], mix('mixup', key)[0]); "
        "print([abs(a - b).max() for a, b in zip(both(key), jax.jit(both)(key))])"
    ),
}


class Finding(typing.NamedTuple):
    """What a case of a law says about a column; a law without cases has the case ""."""

    verdict: str
    text: str = ""
    case: str = ""


def columns(only):
    """The columns whose name contains `only`, with their libraries loaded."""
    for library in LIBRARIES:
        methods = [method for method in library.methods if only in f"{library.name} {method}"]
        try:
            mix = library.load() if methods else None
        except ImportError as error:
            mix = error
        yield from (Column(library, method, mix) for method in methods)


def missing(column):
    """Whether the library could not be imported."""
    return isinstance(column.mix, ImportError)


def judge(column, case, law):
    """Applies a case of a law to a column."""
    if missing(column):
        return Finding("not installed")
    try:
        wrong = law(column)
    except DoesNotApply as reason:
        return Finding("-", str(reason), case)
    except Exception as error:
        return Finding("refused", f"{type(error).__name__}: {error}".splitlines()[0], case)
    return Finding("broken", wrong, case) if wrong else Finding("kept")


def cell(findings):
    """Summarises the findings of a law in a column."""
    words = [f"{f.case} {f.verdict}".strip() for f in findings if f.verdict != "kept"]
    return ", ".join(dict.fromkeys(words)) or "kept"


def lines(results, *verdicts):
    """Describes the findings. Methods of a library with the same finding share a line."""
    methods = {}
    for name, (column, judged) in itertools.product(LAWS, results):
        for finding in judged[name]:
            if finding.verdict in verdicts and finding.text:
                key = name, finding, column.library.name
                methods.setdefault(key, []).append(column.method)
    for (name, finding, library), found in methods.items():
        case = f" ({finding.case})" if finding.case else ""
        line = f"- **{name}**{case}, {library} {', '.join(found)}: {finding.text}."
        if finding.verdict == "broken":
            code = REPRODUCTIONS.get((library, name))
            again = f'-c "{code}"' if code else f'-m tests.conformance --only "{library}"'
            backend = "KERAS_BACKEND=jax " if library == "Keras" else ""
            line += f" Reproduce: `{backend}python {again}`"
        yield line


def report(results):
    """The versions, the table, the breaks and the remarks, in Markdown."""
    versions = []
    for name in ("jax", "torch", "torchvision", "timm", "keras", "kornia"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{name} {importlib.metadata.version(name)}")
    names = [f"{column.library.name} {column.method}" for column, _ in results]
    table = [f"| law | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for name in LAWS:
        table.append(f"| {name} | {' | '.join(cell(judged[name]) for _, judged in results)} |")
    notes = {c.library.name: c.mix if missing(c) else c.library.note for c, _ in results}
    notes = [f"- {name}: {note}" for name, note in notes.items() if note]
    parts = [
        [", ".join(versions), "", "Refused: the library raises. -: the law does not apply."],
        table,
        ["Breaks:", "", *(list(lines(results, "broken")) or ["None."])],
        ["Remarks:", "", *lines(results, "refused", "-"), *notes],
    ]
    return "\n\n".join("\n".join(part) for part in parts)


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="columns whose name contains this")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # Other libraries' warnings.
    results = []
    for column in tqdm(list(columns(args.only)), unit="method"):
        judged = {n: [judge(column, *c) for c in cases.items()] for n, cases in LAWS.items()}
        results.append((column, judged))
    print(report(results))
    ours = [cell(f) for c, j in results if c.library.load is jaxmix for f in j.values()]
    sys.exit(any(word in " ".join(ours) for word in ("broken", "refused")))


if __name__ == "__main__":
    main()
