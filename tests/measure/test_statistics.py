"""Percentiles, intervals and tests, against published values and against what they promise."""

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenet.measure.statistics import (
    PairedDifference,
    Ratio,
    Verdict,
    mcnemar_p,
    paired_ratio,
    student_t,
    summarise,
    unpaired_ratio,
)

SAMPLES = st.lists(st.integers(1, 10**10), min_size=1, max_size=300)


def neighbours(rng, n, *, likeness):
    """Normal samples of which each resembles the one before: autocorrelation `likeness`."""
    fresh = rng.normal(size=n) * math.sqrt(1 - likeness**2)
    fresh[0] = rng.normal()
    values = np.empty(n)
    values[0] = fresh[0]
    for index in range(1, n):
        values[index] = likeness * values[index - 1] + fresh[index]
    return values


KNOWN = {1: "", 19: "", 20: "50", 99: "50", 100: "50 90", 200: "50 90 95", 1000: "50 90 95 99"}


@pytest.mark.parametrize(("n", "known"), [*KNOWN.items(), (199, "50 90"), (999, "50 90 95")])
def test_a_percentile_has_ten_samples_beyond_it(n, known):
    found = summarise(np.arange(1, n + 1) * 1000)
    shown = {percent: getattr(found, f"p{percent}") for percent in (50, 90, 95, 99)}
    assert " ".join(str(percent) for percent in shown if shown[percent] is not None) == known
    assert (found.interval is None) == (found.p50 is None)
    assert (found.p95_interval is None) == (found.p95 is None)
    for percent, value in shown.items():
        if value is not None:
            assert (np.arange(1, n + 1) / 1000 > value).sum() >= 10
            assert value == pytest.approx(np.percentile(np.arange(1, n + 1) / 1000, percent))


@given(SAMPLES)
def test_a_summary_holds_every_sample(samples):
    found = summarise(samples)
    assert (found.n, found.min, found.max) == (len(samples), min(samples) / 1e6, max(samples) / 1e6)
    ordered = [found.min, found.p50, found.p90, found.p95, found.p99, found.max]
    known = [value for value in ordered if value is not None]
    assert known == sorted(known)
    for value, interval in ((found.p50, found.interval), (found.p95, found.p95_interval)):
        if value is not None:
            assert found.min <= interval[0] <= value <= interval[1] <= found.max
    assert found == summarise(samples)


@pytest.mark.parametrize("samples", [[], [1, -1, 2]])
def test_no_summary_of_nothing(samples):
    with pytest.raises(ValueError, match="no samples"):
        summarise(samples)


def test_one_outlier_stays_in():
    found = summarise([*[1_000_000] * 50, 900_000_000])
    assert (found.p50, found.max) == (1, 900)


def test_a_long_run_is_summarised_quickly():
    samples = np.random.default_rng(0).lognormal(size=200_000) * 1e6
    summarise(samples[:1000])  # the draws are made once
    started = time.process_time()
    found = summarise(samples)
    assert time.process_time() - started < 1
    assert found.interval[0] < 1 < found.interval[1]


def test_the_interval_knows_that_neighbours_are_alike():
    rng = np.random.default_rng(1)
    samples = np.exp(neighbours(rng, 2000, likeness=0.95)) * 1e6
    in_time = summarise(samples).interval
    shuffled = summarise(rng.permutation(samples)).interval
    assert in_time[1] - in_time[0] > 2 * (shuffled[1] - shuffled[0])


@pytest.mark.parametrize(("likeness", "least_p50", "least_p95"), [(0, 0.9, 0.9), (0.8, 0.86, 0.8)])
def test_the_interval_covers_the_percentile_of_the_run(likeness, least_p50, least_p95):
    rng = np.random.default_rng(2)
    runs, p95 = 120, math.exp(1.6448536269514722)
    hits = np.zeros(2)
    for _ in range(runs):
        found = summarise(np.exp(neighbours(rng, 400, likeness=likeness)) * 1e6)
        hits += [
            found.interval[0] <= 1 <= found.interval[1],
            found.p95_interval[0] <= p95 <= found.p95_interval[1],
        ]
    assert hits[0] / runs >= least_p50
    assert hits[1] / runs >= least_p95


# Any table of Student's t; the fractional ones by scipy 1.17.
T_975 = {
    1: 12.706204736,
    2: 4.302652730,
    4: 2.776445105,
    4.5: 2.658912347,
    7.3: 2.345066737,
    9: 2.262157163,
    29: 2.045229642,
    49: 2.009575237,
    120: 1.979930405,
}


@pytest.mark.parametrize("freedom", T_975)
def test_student_t(freedom):
    assert student_t(freedom) == pytest.approx(T_975[freedom], rel=1e-8)


T_995 = {1: 63.656741162, 4: 4.604094871, 6: 3.707428021, 30: 2.749995654, 999: 2.580759}


@pytest.mark.parametrize("freedom", T_995)
def test_student_t_at_99_percent(freedom):
    assert student_t(freedom, confidence=0.99) == pytest.approx(T_995[freedom], rel=1e-6)


def test_a_ratio_keeps_its_confidence():
    ratios = [1.02, 1.01, 1.03, 0.99, 1.00]
    usual, sure = paired_ratio(ratios), paired_ratio(ratios, confidence=0.99)
    assert (usual.confidence, sure.confidence) == (0.95, 0.99)
    assert sure.low < usual.low < usual.value == sure.value
    assert sure.launches_to_decide(1.03) > usual.launches_to_decide(1.03)


def test_a_paired_ratio_by_hand():
    ratios = [1.02, 1.01, 1.03, 0.99, 1.00]
    logs = np.log(ratios)
    half = 2.776445105 * logs.std(ddof=1) / math.sqrt(5)
    found = paired_ratio(ratios)
    assert found.launches == 5
    assert math.log(found.value) == pytest.approx(logs.mean())
    assert [math.log(found.low), math.log(found.high)] == pytest.approx(
        [logs.mean() - half, logs.mean() + half]
    )
    assert found.verdict is Verdict.NO_DIFFERENCE


def test_an_unpaired_ratio_is_welchs():
    """Ends by scipy 1.17: ttest_ind(equal_var=False).confidence_interval() of the logs."""
    found = unpaired_ratio([1, 1.1, 0.9, 1, 1.05], [1.1, 1.2, 1.15, 1.1, 1.05])
    assert [found.low, found.high] == pytest.approx([1.0093405311, 1.2211639848])
    assert (found.verdict, found.launches) == (Verdict.SLOWER, 5)


@pytest.mark.parametrize("ratios", [[1.0] * 4, [1.0, 1.0, 1.0, 1.0, 0.0]])
def test_too_few_launches_are_no_ratio(ratios):
    with pytest.raises(ValueError, match="5 launches"):
        paired_ratio(ratios)
    with pytest.raises(ValueError, match="5 launches"):
        unpaired_ratio([1.0] * 5, ratios)


@given(st.lists(st.floats(0.2, 5), min_size=5, max_size=50))
def test_swapping_the_sides_inverts_the_ratio(ratios):
    found, swapped = paired_ratio(ratios), paired_ratio([1 / ratio for ratio in ratios])
    assert found.value == pytest.approx(1 / swapped.value)
    assert (found.low, found.high) == pytest.approx((1 / swapped.high, 1 / swapped.low))
    words = {Verdict.FASTER: Verdict.SLOWER, Verdict.SLOWER: Verdict.FASTER}
    if not any(math.isclose(end, 1) for end in (found.low, found.high)):
        assert swapped.verdict is words.get(found.verdict, found.verdict)


@pytest.mark.parametrize("launches", [5, 10, 50])
def test_a_thing_against_itself_is_no_difference(launches):
    """Launches scatter by 5 %, and a neighbour doubles the time of one launch in ten."""
    rng = np.random.default_rng(3)
    took = rng.lognormal(0, 0.05, size=(600, 2, launches))
    took *= np.where(rng.random(took.shape) < 0.1, 2, 1)
    paired = [paired_ratio(new / base).verdict for base, new in took[:300]]
    unpaired = [unpaired_ratio(base, new).verdict for base, new in took[300:]]
    assert paired.count(Verdict.NO_DIFFERENCE) >= 276
    assert unpaired.count(Verdict.NO_DIFFERENCE) >= 276


def test_a_slowdown_is_found():
    rng = np.random.default_rng(4)
    verdicts = [paired_ratio(1.1 * rng.lognormal(0, 0.03, size=5)).verdict for _ in range(500)]
    assert verdicts.count(Verdict.SLOWER) >= 475


@pytest.mark.parametrize("limit", [1.02, 1.05, 0.99])
def test_launches_to_decide(limit):
    found = paired_ratio([1.02, 1.09, 0.97, 1.05, 0.93, 1.01])
    needed = found.launches_to_decide(limit)
    assert needed > 6
    spread = (math.log(found.high / found.value) * math.sqrt(6)) / student_t(5)
    half = [spread * student_t(n - 1) / math.sqrt(n) for n in (needed - 1, needed)]
    assert half[1] < abs(math.log(limit / found.value)) <= half[0]


def test_some_limits_no_launches_decide():
    ratio = Ratio(value=1.05, low=0.9, high=1.225, launches=5)
    assert ratio.launches_to_decide(1.05) is None
    assert ratio.launches_to_decide(1.0501) is None


@pytest.mark.parametrize(
    ("lost", "gained", "p"),
    [
        (0, 0, 1.0),
        (1, 7, 0.0703125),  # Fagerland, Lydersen and Laake 2013, table 1: 0.070
        (2, 12, 0.012939453125),
        (4900, 5100, 0.04658552770494645),  # scipy 1.17: binomtest(5100, 10000)
    ],
)
def test_mcnemar(lost, gained, p):
    assert mcnemar_p(lost, gained) == mcnemar_p(gained, lost) == pytest.approx(p, rel=1e-12)


@pytest.mark.parametrize(
    ("gained", "lost", "n", "interval"),
    [
        # Airway reactivity before and after a transplantation (Bentur 2009), as worked out in
        # Fagerland, Lydersen and Laake 2014, Statistics in Medicine 33, 2850-2875.
        (1, 7, 21, (-51.7, -2.6)),
        # Where nothing differs the score is z^2 / (n + z^2) by hand.
        (0, 0, 57, (-6.3, 6.3)),
        (0, 0, 10_000, (-0.0, 0.0)),
    ],
)
def test_paired_difference_as_published(gained, lost, n, interval):
    found = PairedDifference(n=n, lost=lost, gained=gained).interval
    assert [round(end, 1) for end in found] == list(interval)


@st.composite
def differences(draw):
    n = draw(st.integers(1, 2000))
    lost = draw(st.integers(0, n))
    return PairedDifference(n=n, lost=lost, gained=draw(st.integers(0, n - lost)))


@given(differences())
def test_the_interval_holds_the_difference(found):
    low, high = found.interval
    assert -100 <= low <= found.points + 1e-9
    assert found.points - 1e-9 <= high <= 100
    mirrored = PairedDifference(n=found.n, lost=found.gained, gained=found.lost).interval
    assert mirrored == pytest.approx((-high, -low), abs=1e-9)


@given(differences(), st.floats(-20, 20))
def test_as_many_images_as_said_decide(found, limit):
    needed = found.images_to_decide(limit)
    if needed is None or needed > 20_000:
        return
    times = math.ceil(needed / found.n)
    more = PairedDifference(n=found.n * times, lost=found.lost * times, gained=found.gained * times)
    low, high = more.interval
    assert low > limit or high < limit


@pytest.mark.parametrize(("n", "lost", "gained"), [(57, 0.04, 0.02), (500, 0.01, 0.01)])
def test_the_paired_interval_covers(n, lost, gained):
    rng = np.random.default_rng(5)
    truth, runs = 100 * (gained - lost), 1000
    drawn = rng.multinomial(n, [lost, gained, 1 - lost - gained], size=runs)
    found = [PairedDifference(n=n, lost=int(b), gained=int(c)).interval for b, c, _ in drawn]
    assert sum(low <= truth <= high for low, high in found) / runs >= 0.93


def test_verdicts_on_accuracy():
    same, worse = PairedDifference(n=57, lost=2, gained=1), PairedDifference(n=57, lost=9, gained=0)
    better = PairedDifference(n=57, lost=0, gained=9)
    assert [d.verdict.value for d in (same, worse, better)] == ["no difference", "worse", "better"]
    assert worse.p_value < 0.05 < same.p_value
