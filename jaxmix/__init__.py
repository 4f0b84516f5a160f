"""CutMix and MixUp for JAX, inside the jitted train step.

A mixing augmentation is compositing: each example's partner is painted over it, through a region,
at an opacity. MixUp paints all of the partner at an opacity below one; CutMix paints an opaque box.
All random decisions are drawn once and stored in a small pytree, the plan. Images, labels, maps and
losses are computed from it by one piece of code.

    mixer --plan(key, images.shape)--> plan --images / labels / maps / loss--> mixed batch

`cutmix` and `mixup` are the common cases in one call. Mixers (`CutMix`, `MixUp`, `RandomChoice`,
`RandomApply`, your own) describe what to do. Plans hold what was drawn. Pairings (`Swap`, `Flip`,
`Roll`, `Permutation`, `Neighbour`) say which row is mixed with which. `recipes` holds the policies
of other libraries, `plot` shows mixed batches, `testing` checks a mixer of your own.
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
