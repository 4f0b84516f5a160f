"""The API's own rules: signatures, names, documents, imports."""

import ast
import dataclasses
import inspect
import pathlib
import sys

import helpers
import pytest

import jaxmix
from jaxmix import (
    CutMix,
    Mixer,
    MixUp,
    Plan,
    RandomApply,
    RandomChoice,
    plot,
    recipes,
    testing,
)

PACKAGE = pathlib.Path(jaxmix.__file__).parent
FUNCTIONS = ["cutmix", "mixup", "symmetric_beta"]
MIXERS = ["CutMix", "Mixer", "MixUp", "RandomApply", "RandomChoice"]
PLANS = ["Box", "Mask", "Plan"]
PAIRINGS = ["Flip", "Neighbour", "Permutation", "Roll", "Swap"]
SUBMODULES = ["plot", "recipes", "testing"]
NAMES = [*FUNCTIONS, *MIXERS, *PLANS, *PAIRINGS, *SUBMODULES]

# From the top down: a module imports none that stands below it.
MODULES = [
    "_pytree",
    "_checks",
    "_sharding",
    "_beta",
    "_pairing",
    "_region",
    "_labels",
    "_composite",
    "_plan",
    "_mixers",
    "_policies",
    "_functions",
    "recipes",
    "testing",
    "plot",
]


def written(call):
    """A signature as a text without annotations."""
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for name, parameter in inspect.signature(call).parameters.items()
        if name not in ("self", "cls")
    ]
    return str(inspect.Signature(parameters)).replace("'", '"')


CALL = '(key, images, labels=None, *, num_classes=None, smoothing=0.0, channel_axis="auto")'
PLAN = '(key, shape, *, channel_axis="auto")'
SIGNATURES = [
    (
        jaxmix.cutmix,
        '(key, images, labels, *, alpha=1.0, num_classes=None, smoothing=0.0, per="example", '
        'pairing="swap", box="paper", minmax=None, axes=None, grid=1, channel_axis="auto")',
    ),
    (
        jaxmix.mixup,
        '(key, images, labels, *, alpha=1.0, num_classes=None, smoothing=0.0, per="example", '
        'pairing="swap", fold=False, channel_axis="auto")',
    ),
    (
        CutMix,
        '(alpha=1.0, *, per="example", pairing="swap", box="paper", minmax=None, axes=None, '
        "grid=1)",
    ),
    (MixUp, '(alpha=1.0, *, per="example", pairing="swap", fold=False)'),
    (RandomChoice, '(mixers, probs=None, *, per="example")'),
    (RandomApply, '(mixer, prob=0.5, *, per="example")'),
    (Plan.of, '(shape, pairing, *, region=None, opacity=None, channel_axis="auto")'),
    (Plan.weights, '(shape, *, channel_axis="auto")'),
    (Plan.images, '(images, *, channel_axis="auto", donors=None)'),
    (Plan.labels, "(labels, *, num_classes=None, smoothing=0.0, donors=None)"),
    (Plan.at, '(shape, *, channel_axis="auto")'),
    (Plan.maps, "(maps, *, donors=None)"),
    (Plan.loss, "(loss_fn, outputs, labels, *, donors=None)"),
    (Plan.accuracy, "(logits, labels, *, donors=None)"),
    (Plan.only, "(valid, *, donors=None)"),
    (Plan.__getitem__, "(rows)"),
    (jaxmix.Box, "(start, stop, grid=1)"),
    (jaxmix.Mask, "(painted)"),
    (jaxmix.Swap, "()"),
    (jaxmix.Flip, "(groups=1)"),
    (jaxmix.Roll, "(shift=1)"),
    (jaxmix.Permutation, "(index=None)"),
    (jaxmix.Neighbour, "(axis_name, local=Roll(shift=0))"),
    (Mixer.draw, "(key, rows, spatial)"),
    (
        recipes.timm,
        "(mixup_alpha=1.0, cutmix_alpha=0.0, cutmix_minmax=None, prob=1.0, switch_prob=0.5, "
        'mode="batch", *, axes=None, pairing=None, per=None)',
    ),
    (
        recipes.torchvision,
        "(cutmix_alpha=0.0, mixup_alpha=0.0, *, axes=None, pairing=None, per=None)",
    ),
    (recipes.big_vision, "(p, *, pairing=None, per=None)"),
    (plot.show, "(images, labels=None, plan=None, *, class_names=None, columns=8)"),
    (plot.gallery, "(images, mixers, key, *, labels=None, class_names=None)"),
    (testing.check, '(mixer, *, shape=(8, 6, 5, 3), channel_axis="auto")'),
    *[(kind.__call__, CALL) for kind in (Mixer, CutMix, MixUp, RandomChoice, RandomApply)],
    *[(kind.plan, PLAN) for kind in (Mixer, CutMix, MixUp, RandomChoice, RandomApply)],
]


@pytest.mark.parametrize(
    "call, expected", SIGNATURES, ids=[call.__qualname__ for call, _ in SIGNATURES]
)
def test_signatures_are_the_designs(call, expected):
    assert written(call) == expected


@pytest.mark.parametrize(
    "function, mixer", [(jaxmix.cutmix, CutMix), (jaxmix.mixup, MixUp)], ids=["cutmix", "mixup"]
)
def test_a_function_has_the_options_of_its_mixer(function, mixer):
    """The same names, defaults and types; what else it takes is what a call of the mixer takes."""
    options = dict(inspect.signature(function).parameters)
    for name, parameter in inspect.signature(mixer).parameters.items():
        option = options.pop(name)
        assert option.kind is inspect.Parameter.KEYWORD_ONLY
        assert option.default == parameter.default
        if name != "pairing":  # A field is read as a pairing, too.
            assert option.annotation == parameter.annotation
    call = dict(inspect.signature(mixer.__call__).parameters)
    assert call.pop("self") and list(options) == list(call)
    for name, option in options.items():
        if name != "labels":  # Which a mixer can do without.
            assert (option.default, option.annotation) == (
                call[name].default,
                call[name].annotation,
            )


def test_symmetric_beta_is_drawn_as_jax_random_draws():
    parameters = list(inspect.signature(jaxmix.symmetric_beta).parameters.values())
    assert [parameter.name for parameter in parameters] == ["key", "alpha", "shape", "dtype"]
    assert parameters[2].default == ()
    assert parameters[3].default.__name__ == "float32"


def public_calls():
    """Every public function, class and method, under its name."""
    for name in NAMES:
        value = getattr(jaxmix, name)
        if callable(value):
            yield pytest.param(value, id=name)
        for member in () if inspect.isfunction(value) else vars(value):
            home = value.__name__ if inspect.ismodule(value) else "jaxmix"
            made_here = getattr(getattr(value, member), "__module__", "").startswith(home)
            if not member.startswith("_") and callable(getattr(value, member)) and made_here:
                yield pytest.param(getattr(value, member), id=f"{name}.{member}")


every_call = pytest.mark.parametrize("call", list(public_calls()))


@every_call
def test_key_comes_first_and_options_are_named(call):
    parameters = [
        parameter
        for parameter in inspect.signature(call).parameters.values()
        if parameter.name != "self"
    ]
    names = [parameter.name for parameter in parameters]
    if call is not plot.gallery:  # Its subject is the images.
        assert "key" not in names[1:], "the key comes first"
    assert not {"rng", "seed", "rng_key", "prng_key", "lambda_"} & set(names)
    kinds = {parameter.kind for parameter in parameters}
    assert not kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    if {"images", "labels"} <= set(names):
        assert names.index("images") < names.index("labels")


def test_the_fields_of_a_plan():
    names = {field.name for field in dataclasses.fields(Plan)}
    assert names >= {"pairing", "region", "opacity", "lam", "spatial"}
    assert isinstance(inspect.getattr_static(Plan, "partner"), property)


def test_the_public_names_are_these_and_no_others():
    assert sorted(jaxmix.__all__) == sorted(NAMES)
    assert len(set(jaxmix.__all__)) == len(NAMES)
    assert list(jaxmix.__all__) in (sorted(NAMES), sorted(NAMES, key=str.lower))
    public = {name for name in vars(jaxmix) if not name.startswith("_")}
    assert public == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_lives_in_jaxmix(name):
    value = getattr(jaxmix, name)
    if name in SUBMODULES:
        assert value.__name__ == f"jaxmix.{name}"
    else:
        assert (value.__module__.split(".")[0], value.__name__) == ("jaxmix", name)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_documented_with_an_example(name):
    document = inspect.cleandoc(getattr(jaxmix, name).__doc__ or "")
    summary = document.splitlines()[0]
    assert summary.endswith(".") and not summary.startswith(f"{name}("), "a dataclass's own"
    assert "Example" in document and ">>> " in document
    assert "jaxmix" in document.split("Example", 1)[1]


@every_call
def test_every_method_is_documented(call):
    assert (inspect.getdoc(call) or "").strip()


def test_the_package_says_what_it_is():
    assert len((jaxmix.__doc__ or "").strip().splitlines()) >= 8
    assert jaxmix.__version__.count(".") == 2
    assert (PACKAGE / "py.typed").is_file()


def imports(path):
    """The modules of the package that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jaxmix":
            parts = (node.module or "").split(".")[1:]
            yield from [parts[0]] if parts else [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield from [node.module] if node.module else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "jaxmix":
                    yield alias.name.partition(".")[2]


GRAPH = {path.stem: set(imports(path)) for path in PACKAGE.glob("*.py") if path.stem != "__init__"}


def reachable(module):
    """What a module imports, directly or not."""
    seen, todo = set(), set(GRAPH[module])
    while todo:
        seen |= todo
        todo = set().union(*(GRAPH.get(name, set()) for name in todo)) - seen
    return seen


def test_every_module_is_in_the_order():
    assert set(MODULES) == set(GRAPH)


@pytest.mark.parametrize("module", sorted(GRAPH))
def test_imports_run_one_way(module):
    assert module not in reachable(module), "a circle"
    assert reachable(module) <= set(GRAPH), "nothing imports the package itself"
    assert not reachable(module) & set(MODULES[MODULES.index(module) :])


@pytest.mark.parametrize("module", MODULES)
def test_private_names_stay_in_their_module(module):
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jaxmix."):
            assert not [alias.name for alias in node.names if alias.name.startswith("_")]
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in MODULES:
                assert not node.attr.startswith("_")


def test_only_jax_and_the_standard_library_are_imported():
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = (
                    [alias.name for alias in node.names]
                    if isinstance(node, ast.Import)
                    else [node.module or "jaxmix"]
                )
                if path.name == "plot.py":  # When it is used, not before: see the next test.
                    names = [name for name in names if not name.startswith("matplotlib.")]
                for name in (name.split(".")[0] for name in names):
                    assert name in {"jax", "jaxmix", "numpy", *sys.stdlib_module_names}, path.name


def test_importing_is_light_and_starts_no_backend():
    """In a process of its own; the number of devices can be set only before a backend is up."""
    program = """
import sys, jaxmix
print(*({"flax", "optax", "chex", "matplotlib", "scipy.stats", "hypothesis"} & set(sys.modules)))
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 3)
print(jax.device_count())
"""
    printed, _ = helpers.run("-c", program)
    assert printed.split() == ["3"]
