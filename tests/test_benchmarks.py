"""The benchmark's contenders do what they are measured for, at sizes that take no time."""

import contextlib
import dataclasses
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from benchmarks import __main__ as main
from benchmarks import bandwidth, cases, compiling, growth, jax_peers, numpy_peers

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


@pytest.mark.parametrize("method", [bandwidth.COPY, "cutmix"])
def test_the_bandwidth_is_of_the_batch_read_once_and_written_once(method, monkeypatch):
    ticks = iter(range(100))  # Every call seems to take a second.
    monkeypatch.setattr(bandwidth.time, "perf_counter", lambda: next(ticks))
    images = jnp.ones((4, 8, 8, 3))
    with leniently():
        rate = bandwidth.rate(method, images, 3)
    assert rate == 2 * 4 * 8 * 8 * 3 * 4 * bandwidth.CALLS / 1e9
    assert next(ticks) == 5 + 3


def test_the_bandwidth_of_a_gpu_is_not_made_up(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert "not measured" in bandwidth.report(1)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(bandwidth, "rate", lambda method, *_: 500 if method == "copy" else 400)
    monkeypatch.setattr(bandwidth, "SIZES", {"224": [(128, 4, 4, 3)]})
    lines = bandwidth.report(1).splitlines()
    assert len(lines) == 2 + 6
    assert lines[2] == "| 128x4x4x3 float32 | 500 (100 %)" + 3 * " | 400 (80 %)" + " |"
