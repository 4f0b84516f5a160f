"""CutMix and MixUp for JAX, inside the jitted train step.

A mixing augmentation is compositing: each example's partner is painted over it, through a region,
at an opacity. MixUp paints all of the partner at an opacity below one; CutMix paints an opaque box.
Everything that such a method decides is drawn once, into a small pytree, the plan; everything that
has to follow it (pixels, labels, maps, losses) is computed from that plan by one piece of code.

    mixer --plan(key, images.shape)--> plan --images / labels / maps / loss--> mixed batch

`cutmix` and `mixup` are the common cases in one call. Mixers (`CutMix`, `MixUp`, `RandomChoice`,
`RandomApply`, your own) describe what to do, plans what was drawn, pairings (`Flip`, `Roll`,
`Permutation`, `Neighbour`) who is mixed with whom. `recipes` holds the policies of other libraries,
`plot` draws mixed batches.
"""

from jaxmix import plot, recipes
from jaxmix._beta import symmetric_beta
from jaxmix._functions import cutmix, mixup
from jaxmix._mixers import CutMix, Mixer, MixUp
from jaxmix._pairing import Flip, Neighbour, Permutation, Roll
from jaxmix._plan import Plan
from jaxmix._policies import RandomApply, RandomChoice
from jaxmix._region import Box, Mask

__version__ = "0.1.0"

__all__ = [
    "Box",
    "CutMix",
    "Flip",
    "Mask",
    "MixUp",
    "Mixer",
    "Neighbour",
    "Permutation",
    "Plan",
    "RandomApply",
    "RandomChoice",
    "Roll",
    "cutmix",
    "mixup",
    "plot",
    "recipes",
    "symmetric_beta",
]
