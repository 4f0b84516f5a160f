r"""Makes the golden files: what timm, torchvision and Keras make of draws that are known.

The libraries run as they are released; only their sources of randomness are replaced, by ones that
keep what they hand out. So the files hold, for each case, the draws and everything that followed.
test_golden.py gives jaxmix the same draws. To make the files again, to the same bytes, in an
environment that is thrown away after (of torch the build for CPUs is enough):

    python3.11 -m venv golden-env
    golden-env/bin/pip install torch==2.14.1 torchvision==0.29.1 timm==1.0.31 \
        keras==3.15.1 jax==0.10.2
    golden-env/bin/python tests/golden/make_golden.py

lambda is handed out in float32, in multiples of 2^-24, so that 1 - lambda is one, too. Draws for
which half a side of the box would lie within 1e-5 of a multiple of one half are drawn again, so
that rounding cannot decide what the box is.
"""

import itertools
import json
import os
import pathlib
from unittest import mock

os.environ["KERAS_BACKEND"] = "jax"

import jax.numpy as jnp
import keras
import numpy as np
import timm
import timm.data.mixup
import torch
import torchvision
from keras.src.backend.jax import random as keras_random
from torchvision.transforms import v2

FOLDER = pathlib.Path(__file__).parent
SIZES = [(16, 16), (17, 17), (12, 19), (15, 10)]
ROWS, CHANNELS, CLASSES, SMOOTHING = 6, 2, 5, 0.1
TIMM_CASES = {
    "cutmix": {"mixup_alpha": 0.0, "cutmix_alpha": 1.0},
    "mixup": {"mixup_alpha": 0.8},
    "minmax": {"mixup_alpha": 0.0, "cutmix_minmax": (0.2, 0.8)},
    "both": {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "prob": 0.6, "switch_prob": 0.5},
}


class Draws:
    """A source of random numbers that keeps what it hands out, in order, by kind."""

    def __init__(self, seed, extents):
        """For boxes in images of these extents."""
        self.generator = np.random.default_rng(seed)
        self.extents = np.array(extents)
        self.drawn = {"uniform": [], "lam": [], "integer": []}

    def keep(self, kind, value):
        """Notes a value and hands it out."""
        self.drawn[kind].append(np.array(value))
        return value

    def uniform(self, *size):
        """Uniform in [0, 1)."""
        return self.keep("uniform", self.generator.random(size or None))

    def lam(self, alpha, rows=None):
        """Beta(alpha, alpha) in float32, away from where rounding decides a side."""
        values = [self._lam(alpha) for _ in range(rows or 1)]
        return self.keep("lam", values[0] if rows is None else np.array(values))

    def _lam(self, alpha):
        while True:
            lam = float(np.round(self.generator.beta(alpha, alpha) * 2**24) / 2**24)
            side = self.extents * np.sqrt(1 - lam)
            if 0 < lam < 1 and np.abs(side - np.round(side)).min() > 2e-5:
                return lam

    def integer(self, low, high=None):
        """Uniform over low, ..., high - 1."""
        low, high = (0, low) if high is None else (low, high)
        return self.keep("integer", int(self.generator.integers(low, high)))


def kept(result, into):
    """A function that does what `result` does, and keeps what it returns."""

    def call(*args, **kwargs):
        into.append(result(*args, **kwargs))
        return into[-1]

    return call


def originals(size, dtype=np.float32):
    """Images [B, C, H, W] and class ids."""
    generator = np.random.default_rng(size)
    shape = (ROWS, CHANNELS, *size)
    if dtype == np.uint8:
        return generator.integers(0, 256, shape, np.uint8), np.arange(ROWS) * 2 % CLASSES
    return generator.random(shape, np.float32), np.arange(ROWS) * 2 % CLASSES


# timm -------------------------------------------------------------------------------------------


def timm_case(options, mode, size, seed, dtype=np.float32, targets=None):
    """One batch of timm's Mixup, or of the one that collates uint8: the draws and the results."""
    images, ids = originals(size, dtype)
    draws, boxes, lams = Draws(seed, size), [], []
    options = {**options, "mode": mode}
    collates = dtype == np.uint8
    kind = timm.data.FastCollateMixup if collates else timm.data.Mixup
    mixup = kind(
        **options,
        label_smoothing=SMOOTHING,
        num_classes=CLASSES,
        multi_label=targets is not None,
    )
    method = f"_mix_{mode}" + ("_collate" if collates else "")
    setattr(mixup, method, kept(getattr(mixup, method), lams))
    with (
        mock.patch("numpy.random.rand", draws.uniform),
        mock.patch("numpy.random.beta", lambda a, b, size=None: draws.lam(a, size)),
        mock.patch("numpy.random.randint", lambda a, b, size=None: draws.integer(a, b)),
        mock.patch(
            "timm.data.mixup.cutmix_bbox_and_lam", kept(timm.data.mixup.cutmix_bbox_and_lam, boxes)
        ),
    ):
        if collates:
            mixed, labels = mixup(
                [(image.copy(), int(i)) for image, i in zip(images, ids, strict=True)]
            )
        else:
            given = torch.from_numpy(ids if targets is None else targets)
            mixed, labels = mixup(torch.from_numpy(images.copy()), given)
    result = {
        "options": json.dumps(options),
        **timm_draws(draws, options, mode, boxes),
        "lam": np.broadcast_to(np.asarray(lams[0], np.float32).reshape(-1), ROWS),
        "mixed": mixed.numpy(),
        "labels": labels.numpy(),
    }
    return result if targets is None else {**result, "targets": targets}


def timm_draws(draws, options, mode, boxes):
    """What was drawn for each row that has draws of its own, in the order of timm's code."""
    rows = {"batch": 1, "pair": ROWS // 2, "elem": ROWS}[mode]
    both = options.get("mixup_alpha", 1.0) > 0 and options.get("cutmix_alpha", 0.0) > 0
    cuts = options.get("cutmix_alpha", 0.0) > 0 or "cutmix_minmax" in options
    uniforms = [np.broadcast_to(u, rows) for u in draws.drawn["uniform"]]
    lams = [np.broadcast_to(lam, rows) for lam in draws.drawn["lam"]]
    if mode == "batch":
        apply, switch = uniforms[0], uniforms[1] if len(uniforms) > 1 else np.zeros(rows)
        cutmix_lam = mixup_lam = lams[0] if lams else np.full(rows, 0.5)
    else:
        apply, switch = uniforms[-1], uniforms[0] if both else np.zeros(rows)
        cutmix_lam, mixup_lam = (lams[0], lams[-1])
    applied = apply < options.get("prob", 1.0)
    cut = applied & cuts & ((switch < options.get("switch_prob", 0.5)) | (not both))
    assert cut.sum() == len(boxes)
    integers = iter(draws.drawn["integer"])
    count = 4 if "cutmix_minmax" in options else 2
    box, places = np.zeros((rows, 4), int), np.zeros((rows, count), int)
    for row, ((low_y, high_y, low_x, high_x), _) in zip(np.flatnonzero(cut), boxes, strict=True):
        box[row] = low_y, low_x, high_y, high_x
        places[row] = [next(integers) for _ in range(count)]
    assert next(integers, None) is None
    return {
        "apply": apply,
        "switch": switch,
        "mixup_lam": mixup_lam.astype(np.float32),
        "cutmix_lam": cutmix_lam.astype(np.float32),
        "places": places,
        "applied": applied,
        "cut": cut,
        "box": box,
    }


def timm_boxes(size, seed, count=400):
    """Many boxes of one image: lambda, the centre, the box and the corrected lambda."""
    draws, boxes = Draws(seed, size), []
    with mock.patch("numpy.random.randint", lambda a, b, size=None: draws.integer(a, b)):
        for _ in range(count):
            lam = draws.lam(1.0)
            boxes.append(timm.data.mixup.cutmix_bbox_and_lam((*size,), lam))
    return boxes_of(draws, [box for box, _ in boxes], [lam for _, lam in boxes])


def boxes_of(draws, boxes, lams):
    """Boxes (low_y, high_y, low_x, high_x) as rows of (start, stop), with their draws."""
    boxes = np.array(boxes)
    return {
        "drawn_lam": np.array(draws.drawn["lam"], np.float32),
        "centre": np.array(draws.drawn["integer"]).reshape(-1, 2),
        "box": boxes[:, [0, 2, 1, 3]],
        "lam": np.array(lams),
    }


def timm_differences():
    """What timm refuses or changes, in its own words."""
    images, ids = (torch.from_numpy(x) for x in originals((8, 8)))
    before = images.clone()
    timm.data.Mixup(mixup_alpha=1.0, num_classes=CLASSES)(images, ids)
    mixup = timm.data.Mixup(mixup_alpha=1.0, num_classes=CLASSES)
    return {
        "writes_into_the_images_it_is_given": not torch.equal(images, before),
        "odd_batch": refusal(mixup, images[:5], ids[:5]),
        "uint8": refusal(mixup, (images * 255).to(torch.uint8), ids),
    }


def refusal(call, *args):
    """The error that a call raises."""
    try:
        call(*args)
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


# torchvision ------------------------------------------------------------------------------------


class Lambda:
    """Stands for torch's Beta distribution in a transform."""

    def __init__(self, draws, alpha):
        """Beta(alpha, alpha)."""
        self.draws, self.alpha = draws, alpha

    def sample(self, shape):
        """One lambda."""
        return torch.tensor(self.draws.lam(self.alpha))


def torchvision_case(size, seed, which):
    """One batch of CutMix (0), of MixUp (1), or of a RandomChoice of both."""
    images, ids = originals(size)
    draws, params = Draws(seed, size), []
    transforms = v2.MixUp(alpha=0.2, num_classes=CLASSES), v2.CutMix(num_classes=CLASSES)
    for transform, alpha in zip(transforms, (0.2, 1.0), strict=True):
        transform._dist = Lambda(draws, alpha)
        transform.make_params = kept(transform.make_params, params)
    with (
        mock.patch("torch.randint", lambda high, size: torch.tensor([draws.integer(high)])),
        mock.patch("torch.multinomial", lambda probs, count: torch.tensor(which)),
    ):
        mixed, labels = v2.RandomChoice(transforms)(torch.from_numpy(images), torch.from_numpy(ids))
    cut = {}
    if which == 1:
        low_x, low_y, high_x, high_y = params[0]["box"]
        x, y = draws.drawn["integer"]
        cut = {"centre": np.array([y, x]), "box": np.array([low_y, low_x, high_y, high_x])}
    return {
        "which": which,
        "drawn_lam": np.float32(draws.drawn["lam"][0]),
        **cut,
        "lam": params[0]["lam_adjusted"] if which == 1 else params[0]["lam"],
        "mixed": mixed.numpy(),
        "labels": labels.numpy(),
    }


def torchvision_boxes(size, seed, count=400):
    """Many boxes of one image."""
    draws = Draws(seed, size)
    transform = v2.CutMix(num_classes=CLASSES)
    transform._dist = Lambda(draws, 1.0)
    image = torch.zeros((1, 1, *size))
    with mock.patch("torch.randint", lambda high, size: torch.tensor([draws.integer(high)])):
        params = [transform.make_params([image]) for _ in range(count)]
    boxes = [(y, high_y, x, high_x) for x, y, high_x, high_y in (p["box"] for p in params)]
    result = boxes_of(draws, boxes, [p["lam_adjusted"] for p in params])
    return {**result, "centre": result["centre"][:, ::-1]}


def torchvision_differences():
    """What torchvision refuses, and what it makes of images with the channels last."""
    images, ids = originals((8, 8))
    last = np.random.default_rng(0).random((ROWS, 8, 8, 4), np.float32)
    transform = v2.CutMix(num_classes=CLASSES)
    draws = Draws(5, (8, 8))
    transform._dist = mock.Mock(sample=lambda shape: torch.tensor(0.3))
    with mock.patch("torch.randint", lambda high, size: torch.tensor([draws.integer(high)])):
        mixed, _ = transform(torch.from_numpy(last), torch.from_numpy(ids))
    eight_bits = torch.from_numpy((images * 255).astype(np.uint8))
    return {
        "uint8": refusal(v2.MixUp(num_classes=CLASSES), eight_bits, torch.from_numpy(ids)),
        "channels_last": last,
        "channels_last_mixed": mixed.numpy(),
    }


# Keras ------------------------------------------------------------------------------------------


def keras_case(kind, size, seed):
    """One batch of keras.layers.CutMix or MixUp."""
    images, ids = originals(size)
    images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    labels = np.eye(CLASSES, dtype=np.float32)[ids]
    draws, transformations = Draws(seed, size), []
    order = draws.generator.permutation(ROWS)
    layer = {
        "cutmix": lambda: keras.layers.CutMix(factor=(1.0, 1.0)),
        "mixup": lambda: keras.layers.MixUp(alpha=0.2),
    }[kind]()
    layer.get_random_transformation = kept(layer.get_random_transformation, transformations)

    def uniform(shape, minval=0.0, maxval=1.0, dtype=None, seed=None):
        if tuple(shape) == ():  # Of the concentration, whose bounds are equal.
            return jnp.float32(minval)
        return jnp.asarray(draws.uniform(*shape), jnp.float32)

    with (
        mock.patch.object(keras_random, "uniform", uniform),
        mock.patch.object(
            keras_random,
            "beta",
            lambda shape, a, b, dtype=None, seed=None: jnp.asarray(
                draws.lam(float(a), *shape), jnp.float32
            ),
        ),
        mock.patch.object(keras_random, "shuffle", lambda x, axis=0, seed=None: jnp.asarray(order)),
    ):
        out = layer({"images": images, "labels": labels}, training=True)
    result = {
        "partner": order,
        "drawn_lam": np.array(draws.drawn["lam"][0], np.float32),
        "weight": np.asarray(transformations[0]["mix_weight"]),
        "mixed": np.asarray(out["images"]),
        "labels": np.asarray(out["labels"]),
    }
    if kind == "cutmix":
        x, y = draws.drawn["uniform"]
        result["uniforms"] = np.stack([y, x], 1).astype(np.float32)
        result["painted"] = np.asarray(transformations[0]["batch_masks"])[..., 0]
    return result


def keras_differences():
    """What Keras's MixUp makes of maps of classes."""
    maps = np.zeros((4, 4, 4, 1), np.float32)
    maps[2:] = 7
    mixed = keras.layers.MixUp(alpha=0.2, seed=0)(
        {"images": np.zeros((4, 4, 4, 3), np.float32), "segmentation_masks": maps}, training=True
    )["segmentation_masks"]
    return {"maps": maps, "maps_mixed": np.asarray(mixed)}


# Files ------------------------------------------------------------------------------------------


def name_of(*parts):
    """A case's name, such as cutmix-elem-16x16."""
    return "-".join("x".join(map(str, p)) if isinstance(p, tuple) else str(p) for p in parts)


def save(library, version, cases):
    """Writes the cases of one library as LIBRARY.npz, as `case/name`."""
    flat = {f"{case}/{name}": v for case, values in cases.items() for name, v in values.items()}
    path = FOLDER / f"{library}.npz"
    np.savez_compressed(path, version=version, **flat)
    print(f"{path.name}: {len(cases)} cases, {path.stat().st_size:,} bytes")


def main():
    """Makes the files."""
    shared = {}
    for size, dtype in itertools.product(SIZES, (np.float32, np.uint8)):
        images, ids = originals(size, dtype)
        shared[name_of(np.dtype(dtype).name, size)] = {"images": images, "ids": ids}
    save("originals", "", shared)

    seeds = itertools.count()
    cases = {}
    for (name, options), mode, size in itertools.product(
        TIMM_CASES.items(), ("batch", "pair", "elem"), SIZES
    ):
        cases[name_of(name, mode, size)] = timm_case(options, mode, size, next(seeds))
    for mode in ("batch", "pair", "elem"):
        options = TIMM_CASES["both"]
        cases[name_of("uint8", mode, (12, 19))] = timm_case(
            options, mode, (12, 19), next(seeds), np.uint8
        )
    targets = np.random.default_rng(0).integers(0, 2, (ROWS, CLASSES)).astype(np.float32)
    cases[name_of("multi", "elem", (12, 19))] = timm_case(
        TIMM_CASES["both"], "elem", (12, 19), next(seeds), targets=targets
    )
    for size in ((224, 224), (17, 30)):
        cases[name_of("boxes", size)] = timm_boxes(size, next(seeds))
    cases["differences"] = timm_differences()
    save("timm", timm.__version__, cases)

    cases = {}
    for which, size in itertools.product((0, 1), SIZES):
        name = name_of(("mixup", "cutmix")[which], size)
        cases[name] = torchvision_case(size, next(seeds), which)
    for size in ((224, 224), (17, 30)):
        cases[name_of("boxes", size)] = torchvision_boxes(size, next(seeds))
    cases["differences"] = torchvision_differences()
    save("torchvision", torchvision.__version__.partition("+")[0], cases)

    cases = {
        name_of(kind, size): keras_case(kind, size, next(seeds))
        for kind, size in itertools.product(("cutmix", "mixup"), SIZES)
    }
    cases["differences"] = keras_differences()
    save("keras", keras.__version__, cases)


if __name__ == "__main__":
    main()
