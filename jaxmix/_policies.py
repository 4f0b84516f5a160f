"""Policies: mixers made of mixers. Nested or not, they make one pass over the pixels."""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxmix import _checks, _pairing, _region
from jaxmix._beta import float32, uniforms
from jaxmix._mixers import Mixer, check_mixer, check_mixers, draw_rows
from jaxmix._pairing import PairingField
from jaxmix._region import Box, Mask, Painted
from jaxmix._sharding import where_rows


class _Policy(Mixer):
    """Base class for policies. A plan has one pairing, so a policy has its mixers' pairing."""

    pairing: PairingField = dataclasses.field(init=False)
    _own_draws = False  # `per` is the granularity of the choice; each mixer has its own.

    def _take_pairing(self, mixers):
        """Takes the pairing of the mixers; must run before the checks of the base class."""
        for mixer in mixers:
            wanted = "a mixer in a policy must define draw, not plan: policies call only draw"
            remedy = "to change labels, call plan.relabel(share) in the train step"
            inherited = type(mixer).plan is Mixer.plan
            _checks.require_type(inherited, type(self).__name__, wanted, mixer, remedy)
            if not _pairing.same(mixers[0].pairing, mixer.pairing):
                raise ValueError(
                    f"{type(self).__name__}: all mixers must have the same pairing, got "
                    f"{mixers[0].pairing!r} and {mixer.pairing!r}; pass the same pairing= to each "
                    "mixer or recipe"
                )
        self._set("pairing", mixers[0].pairing)

    def _uniform(self, key, rows):
        """Draws float32[rows] in [0, 1), with the granularity of the policy."""
        return self._for_each_row(lambda draws: uniforms(key, draws, 1)[:, 0], rows)


class RandomChoice(_Policy):
    """Applies one of several mixers, chosen at random.

    The regions and opacities of the mixers are merged row by row into one plan. The plan makes one
    pass over the pixels, so the cost is that of a single mixer.

    Attributes:
        mixers: the mixers to choose from. A plan has one pairing, so all must have the same.
        probs: the probabilities of the mixers, as numbers or traced. They are normalised to sum to
            1; None makes them equal.
        per: the granularity of the choice: one per "example", per "pair" of rows or per "batch". An
            int n is one choice per run of n rows. The mixers keep their own granularity.

    Raises:
        TypeError: if one of `mixers` is not a mixer, or overrides `plan`.
        ValueError: if there are no mixers, their pairings differ, or `probs` are not valid
            probabilities.

    Example:
        >>> import jax, jax.numpy as jnp, jaxmix
        >>> mixer = jaxmix.RandomChoice((jaxmix.CutMix(), jaxmix.MixUp(0.8)), probs=(0.3, 0.7))
        >>> mixer(jax.random.key(0), jnp.zeros((8, 32, 32, 3))).shape
        (8, 32, 32, 3)
    """

    mixers: Sequence[Mixer]
    probs: Sequence[ArrayLike] | Array | np.ndarray | None = None

    def __post_init__(self):
        mixers = check_mixers("RandomChoice", self.mixers)
        _checks.require(mixers, "RandomChoice", "mixers must not be empty", mixers)
        self._take_pairing(mixers)
        if self.probs is not None:
            self._set("probs", _probs("RandomChoice", self.probs, len(self.mixers)))
        super().__post_init__()

    def draw(self, key, rows, spatial) -> Painted:
        """Draws from every mixer, and chooses one of the draws for each row."""
        choice_key, *keys = jax.random.split(key, 1 + len(self.mixers))
        choice = self._choice(self._uniform(choice_key, rows))
        drawn = [draw_rows(m, k, rows, spatial) for m, k in zip(self.mixers, keys, strict=True)]
        regions = _common_regions([region for region, _ in drawn], rows, spatial)
        opacities = _common_opacities([opacity for _, opacity in drawn], rows)
        chosen, *others = zip(regions, opacities, strict=True)
        for number, other in enumerate(others, 1):
            chosen = jax.tree.map(functools.partial(where_rows, choice == number), other, chosen)
        return chosen

    def _choice(self, uniform):
        """int32[rows]: the index of the chosen mixer."""
        probs = [1.0] * len(self.mixers) if self.probs is None else self.probs
        *bounds, total = itertools.accumulate(float32(prob) for prob in probs)
        # Multiply by the total instead of dividing by it, so that rounding cannot choose a mixer of
        # probability 0.
        point = uniform * total
        passed = ((point >= bound).astype(jnp.int32) for bound in bounds)
        return sum(passed, jnp.zeros(point.shape, jnp.int32))


class RandomApply(_Policy):
    """Applies a mixer with a given probability; otherwise leaves the image unchanged, bit for bit.

    Attributes:
        mixer: the mixer to apply.
        prob: the probability of applying the mixer: a number in [0, 1] or a traced scalar, so that
            a schedule can switch the mixing on and off without recompilation.
        per: the granularity of the decision: one per "example", per "pair" of rows or per "batch".
            An int n is one decision per run of n rows. The mixer keeps its own granularity.

    Raises:
        TypeError: if `mixer` is not a mixer, or overrides `plan`.
        ValueError: if `prob` is not a probability.

    Example:
        >>> import jax, jax.numpy as jnp, jaxmix
        >>> mixer = jaxmix.RandomApply(jaxmix.CutMix(), prob=0.0)
        >>> images = jax.random.uniform(jax.random.key(0), (8, 32, 32, 3))
        >>> bool((mixer(jax.random.key(1), images) == images).all())
        True
    """

    mixer: Mixer
    prob: ArrayLike = 0.5

    def __post_init__(self):
        check_mixer("RandomApply", "mixer", self.mixer)
        self._take_pairing((self.mixer,))
        self._set("prob", _checks.fraction("RandomApply", "prob", self.prob))
        super().__post_init__()

    def draw(self, key, rows, spatial) -> Painted:
        """Draws from the mixer, and switches the mixing off in rows where it is not applied."""
        apply_key, mixer_key = jax.random.split(key)
        off = self._uniform(apply_key, rows) >= float32(self.prob)
        return _region.switch_off(*draw_rows(self.mixer, mixer_key, rows, spatial), off)


def _probs(where: str, value: Any, count: int) -> Any:
    """Checks `count` probabilities: a sequence of scalars, or an array of shape [count]."""
    value = _checks.sequence(value)
    listed = isinstance(value, tuple)
    shape = (len(value),) if listed else _checks.shape_of(value)
    _checks.require_type(shape is not None, where, "probs must be a sequence of numbers", value)
    value = value if listed else _checks.real(where, "probs", value)
    wanted = f"probs must have one number for each of the {count} mixers"
    _checks.require(shape == (count,), where, wanted, value)
    if not listed:
        return value
    value = tuple(_checks.number(where, "each of probs", prob, "not negative") for prob in value)
    known = [prob for prob in value if isinstance(prob, float)]
    bad = [p for p in (*known, sum(known)) if p and not _checks.LEAST <= p <= _checks.LARGEST]
    if bad or (len(known) == count and not any(known)):
        wanted = "probs must be finite and >= 0 in float32, and not all zero"
        raise _checks.value_error(where, wanted, value if len(known) < 5 else (*bad, 0.0)[0])
    return value


def _common_regions(regions, batch, spatial):
    """Converts regions to one type: all None, all boxes, or all masks of one dtype."""
    if all(region is None for region in regions):
        return regions
    boxes = [_region.full_box(batch, spatial) if r is None else r for r in regions]
    if all(isinstance(region, Box) for region in boxes):
        return _region.on_one_grid(boxes)
    masks = [_region.as_mask(region, spatial) for region in boxes]
    soft = any(mask.painted.dtype != jnp.bool_ for mask in masks)
    return [Mask(mask.painted.astype(jnp.float32)) for mask in masks] if soft else masks


def _common_opacities(opacities, batch):
    """Converts opacities to one type: all None, or all float32[batch]."""
    if all(opacity is None for opacity in opacities):
        return opacities
    opaque = jnp.ones((batch,), jnp.float32)
    return [opaque if opacity is None else opacity for opacity in opacities]
