"""The comparison with other libraries notices every break, and holds none against who is right."""

import importlib

import helpers
import numpy as np
import pytest


@pytest.fixture(scope="module")
def conformance():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(helpers.ROOT)
        yield importlib.import_module("tests.conformance")


def mixup(images, seed, alpha, smoothing):
    """Flip and blend in float64, round to nearest: what a library should do."""
    rows, rng = len(images), np.random.default_rng(seed)
    share = rng.beta(alpha, alpha, rows)
    share[np.arange(rows) == np.arange(rows)[::-1]] = 1
    weights = share.reshape(-1, *[1] * (images.ndim - 1))
    own, other = images.astype(np.float64), images[::-1].astype(np.float64)
    mixed = np.where(weights == 1, own, np.where(weights == 0, other, 0))
    inside = (weights > 0) & (weights < 1)
    with np.errstate(invalid="ignore"):
        mixed = np.where(inside, weights * own + (1 - weights) * other, mixed)
    mixed = np.rint(mixed) if images.dtype == np.uint8 else mixed
    eye = np.eye(rows)
    labels = share[:, None] * eye + (1 - share[:, None]) * eye[::-1]
    labels = (1 - smoothing) * labels + smoothing / rows
    return mixed.astype(images.dtype), labels.astype(np.float32)


def column(conformance, broken=lambda images, labels, seed, given: (images, labels)):
    """MixUp of a library that does something more to its results, under jit or not."""

    def mix(method, images, seed, alpha=1.0, smoothing=0.0, jit=False):
        given = np.array(images)
        mixed, labels = broken(*mixup(given, seed, alpha, smoothing), seed + jit / 2, given)
        return conformance.Mixed(mixed, labels, (given, np.arange(len(given))))

    library = conformance.Library("Fake", lambda: mix, ("alpha", "smoothing", "jit"), ("MixUp",))
    return conformance.Column(library, "MixUp", mix)


def overwritten(mixed, labels, seed, given):
    given[:] = mixed
    return mixed, labels


CALLS = iter(range(10**6))
BREAKS = {  # A law, and what breaks it.
    "labels match pixels": lambda x, y, seed, given: (x, np.eye(len(y), dtype=np.float32)),
    "bits are kept": lambda x, y, seed, given: (x + 0 * given[::-1], y),
    "dtype in, dtype out": lambda x, y, seed, given: (x.astype(np.float32), y),
    "rows of labels sum to 1": lambda x, y, seed, given: (x, y * 1.01),
    "same key, same result": lambda x, y, seed, given: (x, y + 1e-6 * next(CALLS)),
    "nothing is mutated": overwritten,
    "odd batches and a batch of one": lambda x, y, seed, given: (given, np.eye(len(y)) / 2),
    "law of lambda": lambda x, y, seed, given: (x, y**1.2),
    "under jit": lambda x, y, seed, given: (x + np.float32(seed), y),
}


def test_who_is_right_keeps_every_law(conformance):
    right = column(conformance)
    for name, cases in conformance.LAWS.items():
        for case in cases.items():
            finding = conformance.judge(right, *case)
            assert finding.verdict == "kept", (name, finding)


@pytest.mark.parametrize("name", BREAKS)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_break_of_each_law_is_found(conformance, name):
    wrong = column(conformance, BREAKS[name])
    findings = [conformance.judge(wrong, *case) for case in conformance.LAWS[name].items()]
    assert "broken" in [finding.verdict for finding in findings]
    judged = {law: findings if law == name else [] for law in conformance.LAWS}
    text = conformance.report([(wrong, judged)])
    assert (
        f"**{name}**" in text and 'Reproduce: `python -m tests.conformance --only "Fake"`' in text
    )


def test_every_law_has_a_break_here(conformance):
    assert BREAKS.keys() == conformance.LAWS.keys()


def test_who_refuses_or_is_missing_breaks_nothing(conformance):
    def refuses(*args, **how):
        raise RuntimeError("no such dtype")

    finding = conformance.judge(column(conformance, refuses), "", conformance.labels_match_pixels)
    assert finding == conformance.Finding("refused", "RuntimeError: no such dtype", "")
    absent = column(conformance)._replace(mix=ImportError("no library"))
    assert conformance.judge(absent, "", None).verdict == "not installed"
