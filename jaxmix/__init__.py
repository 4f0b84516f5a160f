"""CutMix and MixUp for JAX, inside the jitted train step.

`cutmix` and `mixup` mix a batch in one call:

    >>> import jax, jax.numpy as jnp, jaxmix
    >>> images, labels = jnp.zeros((8, 32, 32, 3)), jnp.arange(8)
    >>> images, labels = jaxmix.cutmix(jax.random.key(0), images, labels, num_classes=10)
    >>> images.shape, labels.shape
    ((8, 32, 32, 3), (8, 10))

For anything else, create a mixer: `CutMix`, `MixUp`, `RandomChoice`, `RandomApply` or your own. It
draws plans, and a plan mixes the batch:

    mixer --plan(key, images.shape)--> plan --images / labels / maps / loss--> mixed batch

A plan is a small pytree that stores all random decisions. Each example's partner is painted over
it, through a region, at an opacity. MixUp paints the whole partner at an opacity below one. CutMix
paints an opaque box. Images, labels, maps and losses are computed from the plan by the same code.

Pairings (`Swap`, `Flip`, `Roll`, `Permutation`, `Neighbour`) choose each row's partner. `recipes`
has the policies of other libraries, `plot` shows mixed batches, `testing` checks your own mixer.
"""

from jaxmix import plot, recipes, testing
from jaxmix._beta import symmetric_beta
from jaxmix._functions import cutmix, mixup
from jaxmix._mixers import CutMix, Mixer, MixUp
from jaxmix._pairing import Flip, Neighbour, Permutation, Roll, Swap
from jaxmix._plan import Plan
from jaxmix._policies import RandomApply, RandomChoice
from jaxmix._region import Box, Mask

__version__ = "0.1.0"

__all__ = [
    "Box", "CutMix", "Flip", "Mask", "MixUp", "Mixer", "Neighbour", "Permutation", "Plan",
    "RandomApply", "RandomChoice", "Roll", "Swap", "cutmix", "mixup", "plot", "recipes",
    "symmetric_beta", "testing",
]  # fmt: skip
