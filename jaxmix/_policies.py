"""Policies: mixers made of mixers, which touch the pixels once whatever their depth."""

import itertools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxmix import _checks, _pairing, _region
from jaxmix._mixers import Mixer, _float32, _where_rows
from jaxmix._region import Box, Mask


class RandomChoice(Mixer):
    """Applies one of several mixers, chosen at random.

    The choice is between draws, not between images: the regions and opacities of the mixers are
    merged row by row into one plan, whose one pass over the pixels costs what a single mixer's
    does.

    Attributes:
        mixers: the mixers to choose from. A plan has one pairing, so theirs must agree.
        probs: their probabilities, normalised to sum to 1; equal if None. Numbers or traced.
        per: what gets a choice of its own: each "example", each "pair" of a flip, or the "batch".

    Raises:
        TypeError: if one of `mixers` is not a mixer.
        ValueError: if there are none, their pairings differ, or `probs` are no probabilities.

    Example:
        >>> import jax, jax.numpy as jnp, jaxmix
        >>> mixer = jaxmix.RandomChoice((jaxmix.CutMix(), jaxmix.MixUp(0.8)), probs=(0.3, 0.7))
        >>> mixer(jax.random.key(0), jnp.zeros((8, 32, 32, 3))).shape
        (8, 32, 32, 3)
    """

    mixers: tuple[Mixer, ...]
    probs: Any = None
    pairing: ClassVar = property(lambda self: self.mixers[0].pairing)

    def __post_init__(self):
        name = "RandomChoice"
        if not isinstance(self.mixers, tuple | list):
            raise TypeError(
                f"{name}: mixers must be a sequence of mixers, got {_checks.describe(self.mixers)}"
            )
        if not self.mixers:
            raise ValueError(f"{name}: mixers must hold at least one mixer, got none")
        for mixer in self.mixers:
            _check_mixer(name, "each of mixers", mixer)
            if not _pairing.same(self.pairing, mixer.pairing):
                raise ValueError(
                    f"{name}: mixers must agree on the pairing, which a plan draws once, got "
                    f"{self.pairing!r} and {mixer.pairing!r}"
                )
        if self.probs is not None:
            self._set("probs", _checks.probs(name, self.probs, len(self.mixers)))
        super().__post_init__()

    def _requests(self, spatial):
        """One uniform for the choice, and what the mixers ask for."""
        requests = [(self.per == "batch", 1)]
        return requests + [r for mixer in self.mixers for r in mixer._requests(spatial)]

    def _sample(self, draws, pairing, batch, spatial):
        """Samples every mixer and chooses between the samples row by row."""
        choice = self._spread(self._choice(next(draws)[:, 0]), pairing, batch)
        samples = [mixer._sample(draws, pairing, batch, spatial) for mixer in self.mixers]
        regions = _common_regions([region for region, _ in samples], batch, spatial)
        opacities = _common_opacities([opacity for _, opacity in samples], batch)
        return _chosen(choice, regions), _chosen(choice, opacities)

    def _choice(self, uniform):
        """int32[rows]: the number of the mixer that is chosen."""
        probs = [1.0] * len(self.mixers) if self.probs is None else self.probs
        *bounds, total = itertools.accumulate(_float32(prob) for prob in probs)
        # Scaled by the total instead of dividing by it, so that rounding cannot reach a mixer of
        # probability 0.
        point = uniform * total
        choice = jnp.zeros(point.shape, jnp.int32)
        for bound in bounds:
            choice += (point >= bound).astype(jnp.int32)
        return choice


class RandomApply(Mixer):
    """Applies a mixer with a probability, and otherwise leaves the image bit for bit untouched.

    Attributes:
        mixer: the mixer to apply.
        prob: the probability of applying it: a number in [0, 1] or a traced scalar, so that a
            schedule can switch the mixing on and off without a retrace.
        per: what is decided on its own: each "example", each "pair" of a flip, or the "batch".

    Raises:
        TypeError: if `mixer` is not a mixer.
        ValueError: if `prob` is not a probability.

    Example:
        >>> import jax, jax.numpy as jnp, jaxmix
        >>> mixer = jaxmix.RandomApply(jaxmix.CutMix(), prob=0.0)
        >>> images = jax.random.uniform(jax.random.key(0), (8, 32, 32, 3))
        >>> bool((mixer(jax.random.key(1), images) == images).all())
        True
    """

    mixer: Mixer
    prob: Any = 0.5
    pairing: ClassVar = property(lambda self: self.mixer.pairing)

    def __post_init__(self):
        _check_mixer("RandomApply", "mixer", self.mixer)
        self._set("prob", _checks.share("RandomApply", "prob", self.prob))
        super().__post_init__()

    def _requests(self, spatial):
        """One uniform for the decision, and what the mixer asks for."""
        return [(self.per == "batch", 1), *self.mixer._requests(spatial)]

    def _sample(self, draws, pairing, batch, spatial):
        """Samples the mixer, and empties what it is not to be applied to."""
        off = self._spread(next(draws)[:, 0] >= _float32(self.prob), pairing, batch)
        region, opacity = self.mixer._sample(draws, pairing, batch, spatial)
        return _region.switch_off(region, opacity, off)


def _check_mixer(where, argument, mixer):
    """Raises unless it is a mixer."""
    if not isinstance(mixer, Mixer):
        raise TypeError(
            f"{where}: {argument} must be a mixer such as CutMix(), got {_checks.describe(mixer)}"
        )


def _common_regions(regions, batch, spatial):
    """The regions brought to one type: all None, all boxes, or all masks of one dtype."""
    if all(region is None for region in regions):
        return regions
    boxes = [_region.full_box(batch, spatial) if r is None else r for r in regions]
    if all(isinstance(region, Box) for region in boxes):
        return _region.on_one_grid(boxes)
    masks = [_region.as_mask(region, spatial) for region in boxes]
    soft = any(mask.painted.dtype != jnp.bool_ for mask in masks)
    return [Mask(mask.painted.astype(jnp.float32)) for mask in masks] if soft else masks


def _common_opacities(opacities, batch):
    """The opacities brought to one type: all None, or all float32[batch]."""
    if all(opacity is None for opacity in opacities):
        return opacities
    opaque = jnp.ones((batch,), jnp.float32)
    return [opaque if opacity is None else opacity for opacity in opacities]


def _chosen(choice, alternatives):
    """For each row the alternative of its number."""
    result = alternatives[0]
    for number, alternative in enumerate(alternatives[1:], 1):
        take = choice == number
        result = jax.tree.map(lambda a, r, take=take: _where_rows(take, a, r), alternative, result)
    return result
