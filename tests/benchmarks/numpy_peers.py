"""The loop over a batch in NumPy, as in data loaders."""

import numpy as np


def contenders(case):
    """Returns one call, which mixes one example after the other."""
    if case.dtype == "bfloat16":
        return {"NumPy": "NumPy has no bfloat16"}
    images, ids = case.batch()
    if case.dtype == "float32":
        images = images.astype(np.float32) / np.float32(255)
    if case.layout == "NCHW":
        spatial = images.shape[2:]
    else:
        spatial = images.shape[1:3]
    generator = np.random.default_rng(0)
    one_hot = np.eye(case.classes, dtype=np.float32)

    def call():
        rows = len(images)
        order = generator.permutation(rows)
        drawn = rows if case.per == "example" else 1
        lams = np.broadcast_to(generator.beta(1.0, 1.0, drawn), rows).astype(np.float32)
        cuts = {"cutmix": np.ones(rows, bool), "mixup": np.zeros(rows, bool)}.get(
            case.method, np.broadcast_to(generator.random(drawn) < 0.5, rows)
        )
        centres = np.broadcast_to(generator.integers(0, spatial, (drawn, 2)), (rows, 2))
        mixed, kept = images.copy(), lams.copy()
        for row, (other, lam, cut, centre) in enumerate(
            zip(order, lams, cuts, centres, strict=True)
        ):
            if not cut:
                blend = lam * images[row] + (1 - lam) * images[other]
                mixed[row] = np.rint(blend) if images.dtype == np.uint8 else blend
                continue
            half = [int(n * np.sqrt(1 - lam)) // 2 for n in spatial]
            low = [max(c - h, 0) for c, h in zip(centre, half, strict=True)]
            high = [min(c + h, n) for c, h, n in zip(centre, half, spatial, strict=True)]
            box = tuple(map(slice, low, high))
            where = (slice(None), *box) if case.layout == "NCHW" else box
            mixed[row][where] = images[other][where]
            kept[row] = 1 - (high[0] - low[0]) * (high[1] - low[1]) / np.prod(spatial)
        return mixed, kept[:, None] * one_hot[ids] + (1 - kept[:, None]) * one_hot[ids[order]]

    return {"NumPy": call}
