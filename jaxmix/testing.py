"""Checks that your own mixer obeys the laws of mixing.

Example:
    >>> import jaxmix
    >>> def test_my_mixer():
    ...     jaxmix.testing.check(MyMixer())
"""

import contextlib
import dataclasses
from collections.abc import Generator
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxmix import _checks
from jaxmix._checks import ChannelAxis
from jaxmix._composite import blends
from jaxmix._mixers import CutMix, Mixer, MixUp, PerName, check_mixer
from jaxmix._plan import Plan
from jaxmix._policies import RandomApply, RandomChoice

__all__ = ["check"]

DTYPES = ("float32", "bfloat16", "float16", "uint8", "int32", "bool")
# A description, the found value, the expected value and the tolerance.
Findings = Generator[tuple[str, Any, Any, float], None, None]


def check(
    mixer: Mixer, *, shape: tuple[int, ...] = (8, 6, 5, 3), channel_axis: ChannelAxis = "auto"
) -> None:
    """Checks that a mixer obeys the laws of mixing, as scikit-learn's `check_estimator` does.

    The laws, with the names that errors use:

    - "labels match pixels": the weight of a class in the mixed label is the share of its image in
      the mixed pixels, and each row of labels sums to 1.
    - "granularity": rows that share a draw have the same region, opacity and `lam`.
    - "bits and dtypes": pixels that show one image have its bits, whatever values the other image
      has there. Other pixels are the weighted mean, rounded once. Images keep their dtype.
    - "pure": the same key gives the same result when the plan is drawn again, under `jax.jit` and
      by calling the mixer. Under `jax.vmap`, and when split over all devices, the result is the
      same within rounding.

    The first two are checked for each granularity that the mixer allows. The first is also checked
    for the mixer inside a `RandomChoice` in a `RandomApply`, unless the mixer overrides `plan`.
    JAX's caches are cleared, to detect draws that are not pure.

    Args:
        mixer: the mixer.
        shape: the static shape of the images to try it on. If the mixer has fields with data of
            each row, pass the shape of their images.
        channel_axis: -1, 1, None for no channel axis, or "auto"; see `Mixer.plan`.

    Raises:
        AssertionError: if a law does not hold. The message says which law, for which input, and by
            how much.
        TypeError: if an argument has the wrong type.
        ValueError: if the shape does not suit the mixer.

    Example:
        >>> import jax, jaxmix
        >>> class Half(jaxmix.Mixer):
        ...     def draw(self, key, rows, spatial):
        ...         return None, jax.numpy.full((rows,), 0.5)
        >>> jaxmix.testing.check(Half(), shape=(4, 8, 8, 3))
    """
    where = "testing.check"
    check_mixer(where, "mixer", mixer)
    shape = _checks.shape(where, shape)
    others = CutMix(pairing=mixer.pairing), MixUp(pairing=mixer.pairing)
    layout: Any = {"channel_axis": channel_axis}
    variants = [mixer]
    if type(mixer).plan is Mixer.plan:  # Policies refuse mixers that override plan.
        variants.append(RandomApply(RandomChoice((mixer, *others), probs=(0.6, 0.2, 0.2)), 0.8))
    group = shape[0] // mixer.pairing.groups
    run = max((n for n in range(1, group) if group % n == 0), default=1)
    for per in (per for per in (*get_args(PerName), run) if per != mixer.per):
        with contextlib.suppress(ValueError):  # Not every mixer has every granularity.
            variants.append(dataclasses.replace(mixer, per=per))
    for variant in variants:
        plan = variant.plan(jax.random.key(0), shape, **layout)
        laws: list[Any] = [_labels_match_pixels(plan, shape, layout), _granularity(plan, variant)]
        if variant is mixer:
            laws += [_bits_and_dtypes(plan, shape, layout), _pure(mixer, shape, layout)]
        for law in laws:
            name = law.__name__.replace("_", " ").strip()
            broken = f"{where}: the law {name!r} does not hold for {variant!r} on images {shape}"
            for finding in law:
                _compare(broken, *finding)


def _labels_match_pixels(plan: Plan, shape: tuple, layout: dict) -> Findings:
    rows, ones = shape[0], np.ones(shape[1:], np.float32)
    eye = np.eye(rows, dtype=np.float32)
    mixed = [plan.images(np.multiply.outer(row, ones), **layout) for row in eye]
    painted = np.asarray(mixed, np.float64).reshape(rows, rows, -1).mean(2).T
    for smoothing in (0.0, 0.1):
        labels = plan.labels(jnp.arange(rows), num_classes=rows, smoothing=smoothing)
        labels, expected = np.asarray(labels, np.float64), (1 - smoothing) * painted
        yield f"labels with smoothing={smoothing}", labels, expected + smoothing / rows, 2**-20
        yield "the sums of their rows", labels.sum(1), np.ones(rows), 2**-22


def _granularity(plan: Plan, mixer: Mixer) -> Findings:
    if isinstance(mixer, RandomApply | RandomChoice):
        return  # The mixers in them keep their own granularity.
    first: dict[Any, Any] = {"pair": np.asarray(plan.partner), "batch": np.zeros(plan.batch, int)}
    if isinstance(mixer.per, int):
        first[mixer.per] = np.arange(plan.batch) // mixer.per * mixer.per
    for drawn in map(np.asarray, jax.tree.leaves((plan.region, plan.opacity, plan.lam))):
        yield "drawn values", drawn, drawn[first.get(mixer.per, ...)], 0


def _bits_and_dtypes(plan: Plan, shape: tuple, layout: dict) -> Findings:
    rng, partner = np.random.default_rng(0), np.asarray(plan.partner)
    share = np.asarray(plan.weights(shape, **layout), np.float64)
    channel = _checks.channel("", shape, **layout, region=False)
    share = share if channel is None else np.expand_dims(share, channel)
    alone = (share == 0) | (share == 1)
    blended = blends(plan.region, plan.opacity)  # Bools cannot be blended.
    for dtype in map(jnp.dtype, DTYPES[:-1] if blended else DTYPES):
        floats = jnp.issubdtype(dtype, jnp.floating)
        special = [np.nan, np.inf, -0.0, 0.1, 1, 9] if floats else range(256)
        own = rng.choice(np.array(special).astype(dtype), shape)
        mixed, other = np.asarray(plan.images(own, **layout)), own[partner]
        kept = np.where(alone, np.where(share == 0, other, own), mixed.astype(dtype))
        yield f"{dtype} pixels that show one image", mixed, kept, 0
        with np.errstate(invalid="ignore"):
            mean = share * own.astype(np.float64) + (1 - share) * other.astype(np.float64)
        found, mean = (np.where(alone, 0, x.astype(np.float64)) for x in (mixed, mean))
        unit = 9 * float(jnp.finfo(dtype).eps) if floats else 0.501
        yield f"{dtype} pixels that show both images", found, mean, unit


def _pure(mixer: Mixer, shape: tuple, layout: dict) -> Findings:
    images = np.random.default_rng(0).uniform(0.1, 1, shape).astype(np.float32)
    how = {"num_classes": shape[0]}

    def keys():  # New keys each time, for `jax_debug_key_reuse`.
        return jax.random.split(jax.random.key(0))

    def step(key, images):
        plan = mixer.plan(key, shape, **layout)
        return plan, plan.images(images, **layout), plan.labels(jnp.arange(shape[0]), **how)

    first, second = (step(key, images) for key in keys())
    yield "the same key again", step(keys()[0], images), first, 0
    jax.clear_caches()  # `draw` runs again, and may find another state if it reads one.
    yield "under jax.jit", jax.jit(step)(keys()[0], images), first, 0
    call = mixer(keys()[0], images, jnp.arange(shape[0]), **how, **layout)
    yield "calling the mixer", call, first[1:], 0
    both = jax.tree.map(lambda *leaves: np.stack(leaves), first, second)
    yield "under jax.vmap", jax.vmap(step, (0, None))(keys(), images), both, 2**-22
    count = max(n for n in range(1, jax.device_count() + 1) if shape[0] % n == 0)
    mesh = jax.make_mesh((count,), ("rows",), (AxisType.Auto,), devices=jax.devices()[:count])
    split = jax.device_put(images, NamedSharding(mesh, PartitionSpec("rows")))
    plan, *mixed = jax.jit(step)(keys()[0], split)
    yield f"the plan on {count} devices", plan, first[0], 0
    yield f"images and labels on {count} devices", mixed, [*first[1:]], 2**-22


def _compare(message: str, what: str, found: Any, expected: Any, tolerance: float) -> None:
    """Raises unless two trees of arrays are equal: to the bit, or within a tolerance."""
    for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        one, other = np.asarray(one), np.asarray(other)
        got, wanted = _checks.describe(one), _checks.describe(other)
        if got != wanted:
            raise AssertionError(f"{message}: {what}: {got} instead of {wanted}")
        if tolerance:
            same = np.isclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=True)
        else:
            bits = (np.ascontiguousarray(x)[..., None].view(np.uint8) for x in (one, other))
            same = np.equal(*bits).all(-1)
        if not same.all():
            place = tuple(map(int, np.argwhere(~same)[0]))
            raise AssertionError(
                f"{message}: {what}: {one[place]} instead of {other[place]} at {place}; "
                f"{(~same).sum()} of {same.size} elements differ"
            )
