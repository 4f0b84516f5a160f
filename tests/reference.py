"""The slow oracle: mixing as plain NumPy loops written from the papers, one pixel at a time.

It imports neither jax nor jaxmix, so that one mistake cannot be on both sides of a comparison. All
arithmetic is float64; a result is rounded once, at the end, to the dtype of the input.

Throughout, `partner` is int[B]; `share` is float64[B, *spatial], the share of each pixel that is
painted with the partner (0 leaves the original, 1 replaces it); `lam` is float[B], the share of the
label that is the original's; `donors`, where given, is the batch that the partners come from.

References:
    Yun et al. (2019), "CutMix", Algorithm 1 and the authors' code, https://arxiv.org/abs/1905.04899
    Zhang et al. (2018), "mixup", section 2, https://arxiv.org/abs/1710.09412
"""

import itertools
import math

import ml_dtypes
import numpy as np

# Pairings: who is mixed with whom.


def swap(rows):
    """Everybody's partner where each two rows are mixed; a last one alone with itself."""
    partner = []
    for first in range(0, rows, 2):
        partner += [first + 1, first] if first + 1 < rows else [first]
    return np.array(partner, np.int32)


def flip(rows, groups=1):
    """Row i of a group is paired with the group's row counted from its end."""
    size = rows // groups
    partner = []
    for group in range(groups):
        for i in range(size):
            partner.append(group * size + size - 1 - i)
    return np.array(partner, np.int32)


def roll(rows, shift=1):
    """Row i is paired with row i - shift, around the end."""
    return np.array([(i - shift) % rows for i in range(rows)], np.int32)


def is_single_cycle(partner):
    """Whether walking from row to partner visits every row before it comes back."""
    row, visited = 0, []
    for _ in partner:
        visited.append(row)
        row = int(partner[row])
    return row == 0 and sorted(visited) == list(range(len(partner)))


# Box laws: where CutMix paints, from lambda and a centre. One example at a time, in pixels.


def side(extent, lam, axes):
    """The side of a box over `axes` axes: the axes' shares multiply to 1 - lambda."""
    return int(extent * (1.0 - lam) ** (1.0 / axes))


def paper_box(lam, centre, spatial):
    """The CutMix paper's code: half a side each way of the centre, clipped to the image."""
    start, stop = [], []
    for middle, extent in zip(centre, spatial, strict=True):
        half = side(extent, lam, len(spatial)) // 2
        start.append(min(max(middle - half, 0), extent))
        stop.append(min(max(middle + half, 0), extent))
    return start, stop


def timm_box(lam, centre, spatial):
    """As in the paper, but an odd side keeps its last pixel (timm 1.0.31 and later)."""
    start, stop = [], []
    for middle, extent in zip(centre, spatial, strict=True):
        length = side(extent, lam, len(spatial))
        first = middle - length // 2
        start.append(min(max(first, 0), extent))
        stop.append(min(max(first + length, 0), extent))
    return start, stop


def contained_box(lam, corner, spatial):
    """A box of the drawn area that lies inside the image, from its first corner."""
    sides = [side(extent, lam, len(spatial)) for extent in spatial]
    return list(corner), [first + length for first, length in zip(corner, sides, strict=True)]


def minmax_box(shares, corner, spatial):
    """A box with a share of each extent drawn by itself, from its first corner."""
    sides = [int(extent * share) for extent, share in zip(spatial, shares, strict=True)]
    return list(corner), [first + length for first, length in zip(corner, sides, strict=True)]


# Painting: which share of each pixel is the partner's.


def painted(rows, spatial, *, box=None, mask=None, opacity=None):
    """The share that is painted, from a box (start, stop) or a mask, and an opacity."""
    share = np.ones((rows, *spatial))
    for i in range(rows):
        for pixel in itertools.product(*map(range, spatial)):
            if box is not None:
                bounds = zip(pixel, box[0][i], box[1][i], strict=True)
                share[(i, *pixel)] = float(all(low <= p < high for p, low, high in bounds))
            if mask is not None:
                share[(i, *pixel)] = float(mask[(i, *pixel)])
            if opacity is not None:
                share[(i, *pixel)] *= float(opacity[i])
    return share


def of_plan(plan, spatial):
    """What a plan's fields say is painted; they are only read."""
    region, box, mask = plan.region, None, None
    if hasattr(region, "start"):
        box = np.asarray(region.start), np.asarray(region.stop)
    elif region is not None:
        mask = np.asarray(region.painted)
    opacity = None if plan.opacity is None else np.asarray(plan.opacity)
    return painted(len(plan.lam), spatial, box=box, mask=mask, opacity=opacity)


def lam(share):
    """The original's share of each label: what the painting left, on average over the pixels."""
    left = []
    for row in share:
        left.append(1.0 - math.fsum(row.ravel()) / row.size)
    return np.array(left, np.float64)


def channels_last(images, channel_axis):
    """A view as [B, *spatial, C], whatever the layout."""
    if channel_axis is None:
        return images[..., np.newaxis]
    return np.moveaxis(images, channel_axis, -1)


def blend(original, partner, share):
    """One blended value, exact to float64: the original keeps 1 - share."""
    return (1.0 - share) * np.float64(original) + share * np.float64(partner)


def images(images, partner, share, *, channel_axis=-1, donors=None):
    """Composite each row's partner over it, pixel by pixel.

    Where a pixel is untouched or fully painted, its bits are copied. A row that is its own partner
    keeps its bits, unless donors are given. Integers round half to even.
    """
    mixed = images.copy()
    out = channels_last(mixed, channel_axis)
    original = channels_last(images, channel_axis)
    source = original if donors is None else channels_last(donors, channel_axis)
    for i, j in enumerate(partner):
        if donors is None and i == j:
            continue
        for pixel in itertools.product(*map(range, original.shape[1:])):
            here, there = (i, *pixel), (j, *pixel)
            painting = share[here[:-1]]
            if painting == 1.0:
                out[here] = source[there]
            elif painting > 0.0:
                value = blend(original[here], source[there], painting)
                out[here] = np.rint(value) if images.dtype.kind in "iu" else value
    return mixed


def maps(maps, partner, share, *, donors=None):
    """Every pixel's class from the source with the larger share there; the original on a tie."""
    source = maps if donors is None else donors
    mixed = maps.copy()
    for i, j in enumerate(partner):
        for pixel in itertools.product(*map(range, maps.shape[1:])):
            if share[(i, *pixel)] > 0.5:
                mixed[(i, *pixel)] = source[(j, *pixel)]
    return mixed


# Labels and what is computed from them.


def dense(labels, num_classes=None, smoothing=0.0):
    """Labels as float64[B, K]: class ids one-hot, a negative id a row of zeros; then smoothed."""
    if labels.ndim == 2:
        classes = labels.shape[1]
        return (1.0 - smoothing) * labels.astype(np.float64) + smoothing / classes
    rows = np.zeros((len(labels), num_classes))
    for i, label in enumerate(labels):
        if label < 0:
            continue
        for k in range(num_classes):
            rows[i, k] = (1.0 - smoothing) * (k == label) + smoothing / num_classes
    return rows


def labels(labels, partner, lam, *, num_classes=None, smoothing=0.0, donors=None):
    """Soft labels: lambda of one's own and the rest of one's partner's."""
    own = dense(labels, num_classes, smoothing)
    source = own if donors is None else dense(donors, num_classes, smoothing)
    mixed = np.zeros_like(own)
    for i, j in enumerate(partner):
        mixed[i] = np.float64(lam[i]) * own[i] + (1.0 - np.float64(lam[i])) * source[j]
    return mixed


def cross_entropy(logits, label):
    """Softmax cross-entropy of one row of logits with a class id (none if it is negative)."""
    if label < 0:
        return 0.0
    largest = max(float(z) for z in logits)
    total = math.fsum(math.exp(float(z) - largest) for z in logits)
    return largest + math.log(total) - float(logits[label])


def loss(row_loss, outputs, labels, partner, lam, *, donors=None):
    """Each row's loss with its own label and with its partner's, weighted as the label is."""
    source = labels if donors is None else donors
    losses = []
    for i, j in enumerate(partner):
        own, other = row_loss(outputs[i], labels[i]), row_loss(outputs[i], source[j])
        losses.append(np.float64(lam[i]) * own + (1.0 - np.float64(lam[i])) * other)
    return np.array(losses, np.float64)


def accuracy(logits, labels, partner, lam, *, donors=None):
    """Each row's credit: lambda for its own class id, the rest for its partner's."""

    def credit(row, label):
        best = max(range(len(row)), key=lambda k: float(row[k]))
        return float(best == label)

    return loss(credit, logits, labels, partner, lam, donors=donors)


# Distances.


def ulps(left, right):
    """How many representable numbers two arrays of one float dtype are apart, elementwise."""

    def ordered(array):
        bits = array.view(f"i{array.dtype.itemsize}").astype(object)
        return np.where(bits < 0, -(2 ** (8 * array.dtype.itemsize - 1)) - bits, bits)

    assert left.dtype == right.dtype
    return np.abs(ordered(np.asarray(left)) - ordered(np.asarray(right)))


def blended_well(mixed, exact):
    """Whether an array is the exact one, rounded once to its dtype and a few times to float32.

    For float64 too: its weights are float32. Meant for positive numbers, which cannot cancel.
    """
    error = np.abs(mixed.astype(np.float64) - exact)
    if mixed.dtype.kind in "iu":
        return bool(np.all(error <= 0.5 + 2**-12))
    units = float(ml_dtypes.finfo(mixed.dtype).eps) / 2 + 3 * float(np.finfo(np.float32).eps)
    return bool(np.all(error <= units * np.abs(exact)))


def bits(array):
    """The raw bits of an array, so that NaN equals itself and -0.0 is not 0.0."""
    array = np.ascontiguousarray(array)
    return array.view(f"u{array.dtype.itemsize}")
