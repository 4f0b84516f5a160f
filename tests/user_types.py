"""What a type checker sees of a user's file: tests/test_types.py reads what it infers here."""

import dataclasses
from typing import reveal_type

import jax
import jax.numpy as jnp
import numpy as np

import jaxmix
from jaxmix import Box, CutMix, Mask, Mixer, MixUp, RandomApply, RandomChoice, Roll


class Salient(Mixer):
    """Paints the partner where it is the more salient."""

    threshold: float = 0.5
    saliency: jax.Array | None = dataclasses.field(default=None, metadata={"rows": True})

    def draw(self, key, rows, spatial):
        """Decide by the content of both rows."""
        assert self.saliency is not None
        theirs = self.pairing.take(self.saliency)
        reveal_type(self.pairing)
        reveal_type(theirs)
        return Mask(theirs > self.saliency + self.threshold), None


class Faint(CutMix):
    """A box at half the opacity."""

    def draw(self, key, rows, spatial):
        """The box of CutMix, with an opacity."""
        return super().draw(key, rows, spatial)[0], jnp.full((rows,), 0.5)


key, images, labels = jax.random.key(0), jnp.zeros((8, 32, 32, 3)), jnp.arange(8)
maybe: jax.Array | None = labels if labels.size else None
mixer = RandomChoice([CutMix(1, per="batch"), MixUp(np.float32(0.2))], probs=[0.5, 0.5])
policy = RandomApply(mixer, prob=jnp.float32(0.5))
salient = Salient(0.1, saliency=images.mean(-1), pairing="roll")
reveal_type(mixer(key, images))
reveal_type(mixer(key, images, labels, num_classes=10))
reveal_type(policy(key, images, maybe, num_classes=10, smoothing=0.1, channel_axis=None))
reveal_type(CutMix(pairing=Roll(2)).pairing)
reveal_type(salient.plan(key, images.shape))
reveal_type(salient.plan(key, images.shape)[0:4].images(images[:4]))
reveal_type(jaxmix.cutmix(key, images, labels, num_classes=10, axes=(0,), grid=4))
box = Box(np.zeros((8, 2), np.int32), np.full((8, 2), 4))
reveal_type(jaxmix.Plan.of(images.shape, "flip", region=box, opacity=0.5).lam)
CutMix(minmax=[0.2, 0.8], axes=[0, 1], grid=(4, 4), box="contained")
jaxmix.Neighbour("batch", local="flip")
jaxmix.recipes.timm(0.8, 1.0, mode="elem")

# Each of these is an error.
CutMix(per="exampel")
CutMix(box="round")
MixUp(pairing="shuffle")
jaxmix.mixup(key, images, labels, per="rows")
mixer(key, images, labels, classes=10)
salient(key, images, channel_axis="last")
RandomChoice(CutMix())
