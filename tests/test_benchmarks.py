"""The benchmark's contenders do what they are measured for, at sizes that take no time."""

import contextlib
import dataclasses
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from benchmarks import __main__ as main
from benchmarks import bandwidth, cases, compiling, growth, jax_peers, numpy_peers, steps

SMALL = {"224": ((6, 8, 8, 6), 6)}


@contextlib.contextmanager
def leniently():
    """Under JAX's defaults, as people's code runs, and with the same draws in every call."""
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.debug_key_reuse(False),
    ):
        yield


@pytest.mark.parametrize("per", ["example", "batch"])
@pytest.mark.parametrize("method", cases.METHODS)
def test_the_naive_code_is_right(method, per):
    """A straw man would be no measure: it passes the law of the painted label."""
    images = np.broadcast_to(np.eye(6, dtype=np.float32)[:, None, None], (6, 8, 8, 6))
    key = jax.random.key(0)
    with leniently():
        mixed, soft = jax_peers.naive(method, per, 6, key, jnp.asarray(images), jnp.arange(6))
    np.testing.assert_allclose(mixed.mean((1, 2)), soft, atol=1e-6)
    assert (soft.max(1) < 1).any()


@pytest.mark.parametrize(
    "layout, dtype",
    [("NHWC", "float32"), pytest.param("NCHW", "uint8", marks=pytest.mark.full)],
)
def test_every_contender_of_this_process_runs(layout, dtype, monkeypatch):
    monkeypatch.setattr(cases, "SIZES", SMALL)
    case = cases.Case("224", dtype, layout, "both", "example")
    with leniently():
        for contenders in (jax_peers.contenders(case), numpy_peers.contenders(case)):
            for call in contenders.values():
                call()


def test_another_seed_is_another_draw(monkeypatch):
    monkeypatch.setattr(cases, "SIZES", SMALL)
    case = cases.Case("224", "float32", "NHWC", "mixup", "example")
    with leniently():
        one, other = (
            jax_peers.contenders(dataclasses.replace(case, seed=seed))["jaxmix"]()[0]
            for seed in (0, 1)
        )
    assert (one != other).any()


def test_the_quick_cases_are_among_the_cases():
    assert set(cases.cases(True)) < set(cases.cases(False))
    assert len(cases.cases(False)) == 72


def test_every_result_takes_the_place_of_a_buffer():
    """Labels, too: fresh ones would cost the page faults that the images are spared."""
    ours, _ = jax_peers.programs("cutmix", "example", "NHWC", 6)
    with leniently():
        buffers = jnp.zeros((6, 8, 8, 3)), jnp.zeros((6, 6))
        before = {x.unsafe_buffer_pointer() for x in buffers}
        arguments = jax.random.key(0), jnp.ones((6, 8, 8, 3)), jnp.arange(6)
        results = jax_peers.reusing(ours)(buffers, *arguments)
        assert {x.unsafe_buffer_pointer() for x in results} == before


def test_a_figure_is_the_median_over_the_keys_of_the_fastest_call():
    seconds = iter([3.0, 1.0, 2.0, 9.0, 7.0, 8.0, 6.0, 5.0, 4.0])
    prepared = []

    class Framework:
        @staticmethod
        def prepare(case):
            prepared.append(case.seed)
            return {"steady": ""}

        run = staticmethod(lambda name: next(seconds))

    medians, refused = main.measure([Framework], cases.cases(True)[0], 3)
    assert medians == {"steady": 4.0} and not refused
    assert prepared == [0, 1, 2]


def test_a_round_runs_every_contender_once_and_in_another_order():
    """One framework after the other, so that its contenders find the same images in the caches."""
    names, order = {"one": ["a", "b"], "other": ["c", "d"]}, random.Random(0)
    rounds = [main.turns(names, order) for _ in range(100)]
    every = [(framework, name) for framework, block in names.items() for name in block]
    assert all(sorted(taken) == every for taken in rounds)
    assert all(taken[0][0] == taken[1][0] != taken[2][0] == taken[3][0] for taken in rounds)
    assert len({tuple(taken) for taken in rounds}) == 2 * 2 * 2


def test_a_contender_that_fails_late_is_reported_and_not_called_again():
    answers = iter([1.0, "RuntimeError: by chance"])

    class Framework:
        @staticmethod
        def prepare(case):
            return {"steady": "", "fickle": "", "absent": "not there"}

        run = staticmethod(lambda name: next(answers) if name == "fickle" else 2.0)

    medians, refused = main.measure([Framework], cases.cases(True)[0], 2)
    assert medians == {"steady": 2.0} and not list(answers)
    assert refused == {"absent": "not there", "fickle": "RuntimeError: by chance"}


def test_compilation_is_what_is_beyond_that_of_a_copy(monkeypatch):
    monkeypatch.setattr(compiling, "SIZES", SMALL)
    monkeypatch.setattr(
        compiling, "milliseconds", lambda call, *_: 10 if call is jax_peers.copy else 25
    )
    with leniently():
        lines = compiling.report().splitlines()
    assert "a copy, which takes 10 " in lines[0]
    assert [line.split(" | ")[1] for line in lines[2:]] == ["15"] * 6


@pytest.mark.parametrize("fixed, slope", [(50.0, 2.0), (0.0, 3.0)])
def test_growth_finds_the_line_and_what_lies_farthest_from_it(fixed, slope):
    amounts = np.array([10.0, 400.0, 8000.0, 9000.0])
    straight = fixed + slope * amounts
    np.testing.assert_allclose(growth.line(amounts, straight, fixed), (slope, 0), atol=1e-9)
    for bend in (1.3, 0.7):
        bent = straight * np.array([1, bend, 1, 1])
        found, error = growth.line(amounts, bent, fixed)
        assert (found > slope) == (bend > 1)
        assert error == pytest.approx(1 - (fixed + found * 400) / bent[1])
        assert (error > 0.1) if bend > 1 else (error < -0.1)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_the_time_of_a_call_is_what_one_of_them_takes(monkeypatch, backend):
    """The median over the rounds of the fastest of three turns; the first round only compiles."""
    clock, turns = [0.0], []

    def now():
        clock[0] += 0.5  # Twice for each turn: it seems to take half a second.
        return clock[0]

    def counted(x):
        jax.debug.callback(lambda: turns.append(1))
        return x + 1

    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(bandwidth.time, "perf_counter", now)
    times = bandwidth.seconds({"one": (counted, jnp.float32(1))}, 2)
    jax.effects_barrier()
    alone = 3 * (1 + 3)  # In each round a call that compiles, and three turns.
    together = bandwidth.CALLS * bandwidth.PROGRAMS
    calls, of_one = (alone, 0.5) if backend == "cpu" else (9 * together, 0.5 / together)
    assert times == {"one": of_one} and len(turns) == calls


def test_calls_in_one_program_wait_for_each_other():
    """Else a compiler would make one of them, or share what they read."""
    jaxpr = jax.make_jaxpr(bandwidth.chained(jnp.negative))(jnp.ones(3))
    (program,) = jaxpr.eqns
    names = [equation.primitive.name for equation in program.params["jaxpr"].eqns]
    assert names == ["neg", "optimization_barrier"] * bandwidth.CALLS


@pytest.mark.full
def test_the_tables_of_a_device(monkeypatch):
    """Each cell from its own time: copies take 1 s, other calls as many as their number says."""

    def seconds(calls, rounds):
        names = [name for name in calls if name not in ("copy", "alone")]
        numbered = {name: 1 + 0.1 * number for number, name in enumerate(names, 1)}
        return {name: numbered.get(name, 1.0) for name in calls}

    monkeypatch.setattr(bandwidth, "seconds", seconds)
    monkeypatch.setattr(bandwidth, "on_the_same_gpu", lambda rounds: {"timm": {"cutmix": 2e-6}})
    monkeypatch.setattr(bandwidth, "SIZES", {"224": ((128, 4, 4, 3), 10)})
    with leniently():
        pixels, calls, pipeline = (
            table.splitlines() for table in bandwidth.report(1).split("\n\n")
        )
        assert len(pixels) == 2 + len(bandwidth.DTYPES)
        assert pixels[2].startswith(
            "| 128 float32 | 1000000 (0) | 1.10 | 1.20 / 1.30 / 1.40 | 1.50"
        )
        assert calls[2] == "| jaxmix | 1100000 | 1300000 | 1500000 |"
        assert calls[3:] == ["| naive JAX | 1200000 | 1400000 | 1600000 |", "| timm | 2 | - | - |"]
        cells = "1000000 | 1.10 | 1.20 / 1.40 / 1.60 | 1.30 / 1.50 / 1.70 |"
        assert pipeline[2:] == [f"| 128 | {cells}"]
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        pixels, _, pipeline = (table.splitlines() for table in bandwidth.report(1).split("\n\n"))
    assert [line.split(" | ")[0] for line in pixels[5:]] == [
        f"| 1024 {dtype}" for dtype in bandwidth.DTYPES
    ]
    assert pipeline[2:] == [f"| 128 | {cells}", f"| 1024 | {cells}"]


@pytest.mark.full
def test_what_a_network_takes_is_mixed_and_normalised_in_one_call(monkeypatch):
    monkeypatch.setattr(bandwidth, "SIZES", {"224": ((128, 4, 4, 3), 10)})
    found = {}
    monkeypatch.setattr(bandwidth, "seconds", lambda calls, rounds: found.update(calls) or 1 / 0)
    with leniently(), pytest.raises(ZeroDivisionError):
        bandwidth.pipeline(1)
    with leniently():
        results = {name: call(*arguments) for name, (call, *arguments) in found.items()}
    alone = np.asarray(results["alone"])
    assert alone.dtype == np.float32 and abs(alone.mean()) < 0.3 and 1 < alone.std() < 2
    for method in cases.METHODS:
        images, labels = results["jaxmix", method]
        assert images.shape == alone.shape and labels.shape == (128, 10)
        assert (np.asarray(images) != alone).any()


@pytest.mark.full
def test_a_step_is_timed_with_and_without_mixing(monkeypatch):
    monkeypatch.setattr(steps.ResNet, "rows", 4)
    with leniently():
        lines = steps.report(1).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:5]] == [
        "| plain", "| plain again", "| cutmix, jaxmix",
    ]  # fmt: skip
    assert len(lines) == 2 + 2 + 2 * len(cases.METHODS)


def test_the_network_of_an_accelerator_is_vit_s():
    """22,050,664 weights as the papers have it, with a class token's 384 + 384 less."""
    images = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
    with leniently():
        params = jax.eval_shape(steps.ViT().init, jax.random.key(0), images)
    assert sum(x.size for x in jax.tree.leaves(params)) == 22_050_664 - 2 * 384
