"""What the compiler makes of one call: one pass over the images, and little to compile."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from benchmarks.compiling import equations
from helpers import compiled

from jaxmix import CutMix, Mask, MixUp, RandomApply, RandomChoice, _region

ROWS, CLASSES = 128, 1000
LAYOUTS = {"NHWC": ((ROWS, 224, 224, 3), -1), "NCHW": ((ROWS, 3, 224, 224), 1)}
BOTH = RandomChoice((CutMix(), MixUp()))
MIXERS = {
    "cutmix": CutMix(),
    "cutmix-batch": CutMix(per="batch"),
    "cutmix-permutation": CutMix(pairing="permutation"),
    "mixup": MixUp(),
    "mixup-roll": MixUp(pairing="roll"),
    "both": BOTH,
    "both-apply": RandomApply(BOTH, 0.9),
}
# As jax 0.10 shows them, each `jnp.where` as one, and with all that is in them: jax 0.12 shows one.
EQUATIONS = {"cutmix": (130, 160), "mixup": (130, 127), "both": (200, 258)}


def abstract(dtype="float32", layout="NHWC"):
    """Shapes of a key, images and class ids."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    images = jax.ShapeDtypeStruct(LAYOUTS[layout][0], jnp.dtype(dtype))
    return key, images, jax.ShapeDtypeStruct((ROWS,), jnp.int32)


def large(text, size):
    """The opcodes of the program's own instructions whose result is as large as the images."""
    found = []
    for line in text[text.index("ENTRY") :].splitlines():
        shape = re.match(r"\s+(?:ROOT )?%?[\w.\-]+ = \w+\[([\d,]*)\]\S* ([\w\-]+)", line)
        if shape and math.prod(map(int, filter(None, shape[1].split(",")))) >= size:
            found.append(shape[2])
    return sorted(found)


def loops(text):
    """What the loops carry, but for the rounds of threefry, which is bits and a counter."""
    carried = re.findall(r"= (\(.*\)|\S+) while\(", text)
    return [values for values in carried if re.search(r"(?!u32|s32\[\])\b[a-z]+\d+\[", values)]


def primitives(jaxpr):
    """The names of its primitives, with those inside of jits as often as these are called."""
    names = []
    for equation in jaxpr.eqns:
        inner = equation.params["jaxpr"].jaxpr if equation.primitive.name == "jit" else None
        names += [equation.primitive.name] if inner is None else primitives(inner)
    return names


CASES = [
    *[(name, "float32", "NHWC") for name in MIXERS],
    *[("both", dtype, "NHWC") for dtype in ("bfloat16", "uint8")],
    *[("cutmix", "uint8", "NHWC"), ("both", "float32", "NCHW")],
]


@pytest.mark.parametrize("name, dtype, layout", CASES, ids=["-".join(case) for case in CASES])
def test_one_pass_over_the_images_and_no_copy_of_them(name, dtype, layout):
    key, images, labels = abstract(dtype, layout)

    def call(key, images, labels):
        axis = LAYOUTS[layout][1]
        return MIXERS[name](key, images, labels, num_classes=CLASSES, channel_axis=axis)

    program = compiled(call, key, images, labels)
    text = program.as_text()
    assert large(text, math.prod(images.shape)) == ["fusion", "parameter"]
    assert not loops(text)
    assert program.memory_analysis().temp_size_in_bytes <= 100_000


def test_the_test_sees_a_second_pass():
    key, images, labels = abstract()

    def call(key, images, labels):
        return CutMix()(key, jnp.cumsum(images, 1))

    program = compiled(call, key, images, labels)
    assert large(program.as_text(), math.prod(images.shape)) != ["fusion", "parameter"]
    assert program.memory_analysis().temp_size_in_bytes > math.prod(images.shape)


def test_the_test_sees_a_loop():
    key, *_ = abstract()
    assert loops(compiled(lambda key: jax.random.beta(key, 1.0, 1.0, (8,)), key).as_text())
    assert not loops(compiled(lambda key: jax.random.uniform(key, (8,)), key).as_text())


@pytest.mark.parametrize("name", EQUATIONS)
def test_equations_within_the_budget(name):
    key, images, labels = abstract()
    jaxpr = jax.make_jaxpr(
        lambda key, images, labels: MIXERS[name](key, images, labels, num_classes=CLASSES)
    )(key, images, labels)
    shown, written_out = EQUATIONS[name]
    assert len(jaxpr.eqns) <= shown
    assert equations(jaxpr.jaxpr) <= written_out


def test_equations_inside_of_a_jit_count():
    jaxpr = jax.make_jaxpr(lambda x: jax.jit(lambda x: jax.jit(jnp.sin)(x) + x)(x) * x)(1.0)
    assert equations(jaxpr.jaxpr) == 3


@pytest.mark.parametrize(
    "mixer, draws",
    [
        (CutMix(), 1),
        (MixUp(per="batch"), 1),
        (BOTH, 3),
        (RandomApply(RandomChoice((CutMix(), RandomChoice((MixUp(), CutMix()))))), 6),
    ],
    ids=["cutmix", "mixup", "both", "nested"],
)
def test_each_mixer_and_policy_draws_once(mixer, draws):
    """Compiling a draw takes longer than compiling all the rest of a plan."""
    key, images, _ = abstract()
    jaxpr = jax.make_jaxpr(lambda key: mixer.plan(key, images.shape))(key)
    assert primitives(jaxpr.jaxpr).count("random_bits") == draws


@pytest.mark.parametrize("pixels", [2**24 - 3, 4096 * 4095, 2**23 + 9, 224 * 224])
def test_a_quotient_that_is_off_by_a_unit_is_refined(pixels):
    """As a GPU divides; what is fused as it is there counts every pixel."""
    kept = np.random.default_rng(0).integers(0, pixels + 1, 100_000).astype(np.float32)
    right = (kept / np.float64(pixels)).astype(np.float32)
    for off in (np.float32(-1), np.float32(2)):
        given = np.nextafter(right, off)
        share = jax.jit(_region.refined)(given, kept, np.full_like(kept, pixels))
        assert np.array_equal(np.rint(np.asarray(share, np.float64) * pixels), kept)
    assert pixels < 2**23 or not np.array_equal(np.rint(given * np.float64(pixels)), kept)


@pytest.mark.parametrize("platform, divisions", [("cpu", 1), ("cuda", 2), ("tpu", 2)])
def test_a_share_is_refined_on_accelerators_alone(platform, divisions):
    settle = jax.jit(lambda painted: _region.settle(Mask(painted), (4, 3))[1])
    exported = jax.export.export(settle, platforms=[platform])(np.ones((2, 4, 3), bool))
    assert exported.mlir_module().count("stablehlo.divide") == divisions
