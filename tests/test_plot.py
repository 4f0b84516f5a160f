"""plot: what is drawn, read back from the figure."""

import builtins
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from jaxmix import Box, CutMix, Flip, Mask, MixUp, Neighbour, Plan, RandomChoice, Roll, plot

NAMES = ["cat", "dog", "owl"]


def drawn(figure):
    """The arrays that the axes of a figure show."""
    return np.stack([np.asarray(axes.images[0].get_array()) for axes in figure.axes])


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


def pixels(shape):
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize(
    "shape", [(5, 6, 4, 3), (5, 6, 4, 1), (5, 3, 6, 4), (5, 1, 6, 4), (5, 6, 4)]
)
def test_pixels_are_shown_as_they_are(dtype, shape):
    expected = pixels(shape)
    floating = "int" not in dtype
    images = jnp.asarray(expected / 255 if floating else expected, dtype)
    figure = plot.show(images, columns=3)
    expected = expected.astype(np.float32) / 255
    if shape[1:3] == (6, 4):
        expected = expected[..., 0] if shape[-1] == 1 else expected
    else:
        expected = np.moveaxis(expected, 1, -1) if shape[1] == 3 else expected[:, 0]
    np.testing.assert_allclose(drawn(figure), expected, atol=4e-3 if floating else 1e-6)
    assert titles(figure) == [""] * 5
    figure.canvas.draw()
    tops = {round(axes.get_position().y0, 3) for axes in figure.axes}
    assert len(tops) == 2, "five images in rows of three"


@pytest.mark.parametrize("images", [[[[10, 100]]], [[[0.1, 0.4]]], [[[0, 254]]]], ids=str)
def test_dark_pictures_stay_dark(images):
    images = np.array(images)
    expected = images / 255 if images.dtype.kind == "i" else images
    np.testing.assert_allclose(drawn(plot.show(images)), expected, atol=1e-6)


def test_normalised_images_are_stretched_and_nan_is_black():
    images = np.full((2, 2, 2, 1), -2.0, np.float32)
    images[0, 0, 0], images[0, 0, 1], images[1, 1, 1] = 2.0, 0.0, np.nan
    expected = np.zeros((2, 2, 2))
    expected[0, 0] = 1.0, 0.5
    np.testing.assert_allclose(drawn(plot.show(images)), expected)


def test_titles_are_the_two_classes_with_their_shares():
    images = pixels((4, 8, 8, 3))
    opacity = jnp.array([0.25, 0.0, 0.6, 0.5])
    plan = Plan.of(images.shape, Flip(), opacity=opacity)
    expected = [
        "cat: 75 %\nowl: 25 %",
        "dog: 100 %",
        "dog: 60 %\nowl: 40 %",
        "cat: 50 %\nowl: 50 %",
    ]
    ids = np.array([0, 1, 2, 2])
    assert titles(plot.show(images, ids, plan, class_names=NAMES)) == expected
    soft = plan.labels(ids, num_classes=3)
    assert titles(plot.show(images, soft, class_names=NAMES)) == expected
    assert titles(plot.show(images, soft, plan, class_names=NAMES)) == expected, "mixed once"
    assert titles(plot.show(images, ids)) == ["0: 100 %", "1: 100 %", "2: 100 %", "2: 100 %"]
    assert titles(plot.show(images, np.array([[0.5], [1], [2], [3.0]]))) == [
        "0.50", "1.00", "2.00", "3.00",
    ]  # fmt: skip


def outline(axes):
    """The number of lines around what was painted, and (left, right, bottom, top) of them."""
    lines = np.array([line for found in axes.collections for line in found.get_segments()])
    sides = np.stack([lines.min((0, 1)), lines.max((0, 1))], 1) if len(lines) else np.zeros(0)
    return len(lines), sides.ravel().tolist()


@pytest.mark.parametrize("relabelled", [False, True])
def test_boxes_are_outlined_at_their_outer_pixels(relabelled):
    images = pixels((4, 8, 6, 3))
    box = Box(
        jnp.array([[1, 2], [0, 0], [3, 3], [0, 0]]), jnp.array([[4, 5], [8, 6], [3, 3], [8, 2]])
    )
    plan = Plan.of(images.shape, Flip(), region=box)
    if relabelled:  # Another label does not change the pixels.
        plan = plan.relabel(jnp.ones(4))
    figure = plot.show(plan.images(images), None, plan)
    everything = nothing = (0, [])
    assert [outline(axes) for axes in figure.axes] == [
        (12, [1.5, 4.5, 0.5, 3.5]),
        everything,
        nothing,
        (20, [-0.5, 1.5, -0.5, 7.5]),
    ]
    assert not any(axes.collections for axes in plot.show(images).axes)


def test_rows_that_show_nothing_of_their_partner_have_no_outline():
    box = Box(jnp.zeros((3, 2), int), jnp.full((3, 2), 4))
    for opacity, outlined in ((None, [True, True, False]), (jnp.float32(0), [False] * 3)):
        plan = Plan.of((3, 8, 6, 3), "swap", region=box, opacity=opacity)
        figure = plot.show(pixels((3, 8, 6, 3)), None, plan)
        assert [outline(axes)[0] > 0 for axes in figure.axes] == outlined


def test_partners_from_donors_are_outlined():
    box = Box(jnp.zeros((2, 2), int), jnp.full((2, 2), 4))
    plan = Plan.of((2, 8, 6, 3), Roll(0), region=box)
    figure = plot.show(pixels((2, 8, 6, 3)), None, plan)
    assert [outline(axes)[0] for axes in figure.axes] == [16, 16]


def test_partners_of_the_next_device_are_outlined():
    """Their numbers are those of other rows, even where they are the same."""
    box = Box(jnp.zeros((2, 2), int), jnp.full((2, 2), 4))
    plan = Plan.of((2, 8, 6, 3), Roll(0), region=box)
    figure = plot.show(
        pixels((2, 8, 6, 3)), None, dataclasses.replace(plan, pairing=Neighbour("rows"))
    )
    assert [outline(axes)[0] for axes in figure.axes] == [16, 16]


def test_names_are_shown_as_they_are():
    shares = np.array([[0.995, 0.005], [0.4, 0.6]])
    figure = plot.show(pixels((2, 8, 8, 3)), shares, class_names=["50% off", "a b"])
    assert titles(figure) == ["50% off: 100 %", "a b: 60 %\n50% off: 40 %"]


def test_masks_are_outlined_along_their_edge():
    painted = np.zeros((3, 8, 6), bool)
    painted[0, 2:5, :3] = painted[1] = True
    painted[0, 3, 1] = False
    plan = Plan.of((3, 8, 6, 3), Flip(), region=Mask(jnp.asarray(painted)))
    figure = plot.show(pixels((3, 8, 6, 3)), None, plan)
    found = [outline(axes) for axes in figure.axes]
    assert found == [(16, [-0.5, 2.5, 1.5, 4.5]), (0, []), (0, [])]
    assert figure.axes[0].get_ylim() == (7.5, -0.5)


def test_gallery_has_a_row_for_each_mixer_below_the_original():
    images = pixels((3, 8, 6, 3))
    mixers = [CutMix(0.5, box="timm"), MixUp(), RandomChoice((CutMix(), MixUp(0.8)), per="batch")]
    key = jax.random.key(3)
    figure = plot.gallery(images, mixers, key)
    rows = drawn(figure).reshape(4, 3, 8, 6, 3)
    np.testing.assert_allclose(rows[0], images / 255, atol=1e-6)
    for i, mixer in enumerate(mixers, 1):
        plan = mixer.plan(jax.random.fold_in(key, i), images.shape)
        assert np.abs(rows[i] - plan.images(jnp.float32(images / 255))).max() < 1e-6
    headings = [part.get_suptitle().replace("\n", " ") for part in figure.subfigs]
    assert headings == ["original", *map(str, mixers)]
    assert sum(len(axes.collections) for axes in figure.axes[3:6]) > 0


def test_gallery_shows_the_shares_of_each_image():
    images, key = pixels((3, 8, 6, 3)), jax.random.key(3)
    plan = CutMix().plan(jax.random.fold_in(key, 1), images.shape)
    for given, names in ((None, None), (np.array([2, 0, 0]), NAMES), (np.eye(3)[::-1], NAMES)):
        figure = plot.gallery(images, [CutMix()], key, labels=given, class_names=names)
        own = np.arange(3) if given is None else given
        mixed = plan.labels(own, num_classes=3 if own.ndim == 1 else None)
        shown = [plot.show(images, labels, class_names=names) for labels in (own, mixed)]
        assert titles(figure) == [title for one in shown for title in titles(one)]
    assert titles(figure)[:3] == ["owl: 100 %", "dog: 100 %", "cat: 100 %"]
    assert any("\n" in title for title in titles(figure)[3:])


LONG = [
    "American Staffordshire terrier",
    "STAFFORDSHIRE BULL TERRIER",
    "Otorhinolaryngologist",
    "$a$",
]
POLICY = RandomChoice((CutMix(0.5, box="timm", per="pair"), MixUp(0.3, per="pair")), per="pair")


@pytest.mark.parametrize("count", [1, 2, 5])
def test_no_text_is_cut_off_or_overlaps(count):
    """Long names and policies, read back as they are laid out."""
    images, labels = pixels((count, 16, 16, 3)), np.arange(count) % 4
    key = jax.random.key(3)
    figures = [
        plot.gallery(images, [POLICY, CutMix()], key, labels=labels, class_names=LONG),
        plot.show(images, np.full((count, 4), 0.25), class_names=LONG, columns=2),
        plot.show(images, np.eye(4)[labels] * 0.5 + 0.1, class_names=LONG),
    ]
    for figure in figures:
        FigureCanvasAgg(figure).draw()
        texts = [axes.title for axes in figure.axes if axes.get_title()]
        texts += [part._suptitle for part in figure.subfigs if part.get_suptitle()]
        boxes = [text.get_window_extent() for text in texts]
        boxes += [axes.get_window_extent() for axes in figure.axes]
        assert len(texts) >= count
        assert not any(text.get_parse_math() for text in texts)
        for i, one in enumerate(boxes):
            assert figure.bbox.x0 <= one.x0 and one.x1 <= figure.bbox.x1, i
            assert figure.bbox.y0 <= one.y0 and one.y1 <= figure.bbox.y1, i
            assert one.count_overlaps(boxes[:i]) == 0, (i, len(texts))
    assert ("$a$: 100 %" in titles(figures[0])) == (count > 3)


@pytest.mark.parametrize("labels", [None, np.zeros((0,), int)])
def test_an_empty_batch_is_an_empty_figure(labels):
    assert plot.show(pixels((0, 8, 6, 3)), labels).axes == []
    assert plot.gallery(pixels((0, 8, 6, 3)), [CutMix()], jax.random.key(0)).axes == []


@pytest.mark.parametrize("shape", [(2, 1, 8, 6), (2, 8, 6, 1), (2, 3, 8, 6)])
def test_gallery_of_other_layouts(shape):
    figure = plot.gallery(pixels(shape), (CutMix(),), jax.random.key(0))
    assert drawn(figure).shape[:3] == (4, 8, 6)


def test_without_matplotlib(monkeypatch):
    imported = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=r"plot.show needs matplotlib: pip install matplotlib"):
        plot.show(pixels((1, 8, 8, 3)))


IMAGES = pixels((4, 8, 8, 3))
BAD = {
    "rank": (ValueError, r"plot.show: images must be \[B, H, W\]", (IMAGES[0, 0],)),
    "channels": (ValueError, r"1 or 3 channels, got .*\[4, ?8, ?8, ?2\]", (IMAGES[..., :2],)),
    "one image": (ValueError, r"batch axis.*\[8, ?8, ?3\]; .*images\[None\]", (IMAGES[0],)),
    "list": (TypeError, r"plot.show: images", ([[1]],)),
    "labels": (ValueError, r"plot.show: labels .*\[3\]", (IMAGES, np.arange(3))),
    "not a plan": (TypeError, r"plan must be a Plan", (IMAGES, None, CutMix())),
}


@pytest.mark.parametrize("kind, message, arguments", BAD.values(), ids=BAD)
def test_bad_arguments(kind, message, arguments):
    with pytest.raises(kind, match=message):
        plot.show(*arguments)


def test_bad_options():
    with pytest.raises(ValueError, match=r"plot.show: columns"):
        plot.show(IMAGES, columns=0)
    with pytest.raises(ValueError, match=r"2"):
        plot.show(IMAGES, np.array([0, 1, 2, 0]), class_names=NAMES[:2])
    plan = CutMix().plan(jax.random.key(0), (4, 9, 8, 3))
    with pytest.raises(ValueError, match=r"plot.show: .*extents \(9, 8\), got .*\(4, 8, 8\)"):
        plot.show(IMAGES, None, plan)
    with pytest.raises(TypeError, match=r"plot.gallery: each of mixers must be a mixer"):
        plot.gallery(IMAGES, (None,), jax.random.key(0))
    with pytest.raises(TypeError, match=r"plot.gallery: mixers must be a sequence .*CutMix"):
        plot.gallery(IMAGES, CutMix(), jax.random.key(0))
    with pytest.raises(TypeError, match=r"plot.gallery: .*jax.random.key\(0\)"):
        plot.gallery(IMAGES, (CutMix(),), 0)
