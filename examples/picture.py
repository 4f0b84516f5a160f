"""Draws the picture of the README: photographs, and the same ones mixed by CutMix and by MixUp.

    python examples/picture.py

It takes a few seconds and writes examples/mixed_photographs.png, or the file that `--out` names.
The text below each image is its label: the classes and their shares.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import skimage
from matplotlib.figure import Figure

import jaxmix

CORNERS = {"astronaut": (0, 100), "coffee": (20, 110), "cat": (10, 70), "rocket": (140, 180)}
SIDE = 256


def photographs():
    """Crops of photographs that come with scikit-image, uint8[4, 256, 256, 3]."""
    files = {"cat": "chelsea"}
    crops = []
    for name, (top, left) in CORNERS.items():
        image = getattr(skimage.data, files.get(name, name))()
        crops.append(image[top : top + SIDE, left : left + SIDE])
    return jnp.asarray(np.stack(crops))


def main():
    """Mixes the photographs and draws a row for each method."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    place = Path(__file__).parent / "mixed_photographs.png"
    parser.add_argument("--out", type=Path, default=place, help="the file (default: %(default)s)")
    out = parser.parse_args().out
    images, names = photographs(), list(CORNERS)
    plans = {  # With these keys all four images are visibly mixed.
        "CutMix": jaxmix.CutMix(box="contained").plan(jax.random.key(60), images.shape),
        "MixUp": jaxmix.MixUp().plan(jax.random.key(235), images.shape),
    }
    rows = {"original": (images, jnp.eye(4))}
    for method, plan in plans.items():
        rows[method] = plan.images(images), plan.labels(jnp.arange(4), num_classes=4)
    figure = Figure(figsize=(8, 6.6), layout="constrained")
    for axes, (method, (mixed, labels)) in zip(figure.subplots(3, 4), rows.items(), strict=True):
        axes[0].set_ylabel(method, fontsize=11)
        for ax, image, label in zip(axes, mixed, np.asarray(labels), strict=True):
            ax.imshow(image)
            ax.set(xticks=[], yticks=[])
            classes = [k for k in np.argsort(-label) if label[k] >= 0.005]
            shown = [f"{names[k]}: {100 * label[k]:.0f} %" for k in classes]
            ax.set_xlabel(", ".join(shown), fontsize=8.5)
    figure.savefig(out, dpi=80)
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
