"""Metrics of a ranking against a planted set: against every order of the ties, and at their ends."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hones.benchmark.metrics import BUDGETS, budget, judge, membership, tied_ranking
from hones.errors import HonesError
from hones.models.sites import Site


def orders(importance: np.ndarray) -> list[list[int]]:
    """Every order of the neurons that the importance allows, each as often as it has ways: the definition."""
    values = np.maximum(importance.ravel(), 0)
    return [list(p) for p in permutations(range(values.size)) if all(np.diff(values[list(p)]) <= 0)]


def slow_average_precision(order: list[int], wanted: set[int]) -> float:
    return float(np.mean([len(wanted & set(order[: k + 1])) / (k + 1) for k, i in enumerate(order) if i in wanted]))


def sites_of(flat: set[int], width: int) -> list[Site]:
    return [divmod(i, width) for i in sorted(flat)]


@given(
    st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0]), min_size=6, max_size=6),
    st.sets(st.integers(0, 5), min_size=1),
)
def test_every_number_is_the_mean_over_the_orders_of_ties(values: list[float], wanted: set[int]) -> None:
    importance = np.array(values).reshape(2, 3)
    every, count = orders(importance), len(wanted)
    other = {0, 4}
    found = judge(importance, sites_of(wanted, 3), others={"decoys": sites_of(other, 3)})

    def mean_hits(of: set[int], k: int) -> float:
        return float(np.mean([len(of & set(order[:k])) for order in every]))

    assert found.average_precision == pytest.approx(np.mean([slow_average_precision(o, wanted) for o in every]))
    assert found.precision == pytest.approx(mean_hits(wanted, count) / count)
    assert found.wide_recall == pytest.approx(mean_hits(wanted, min(6, 10 * count)) / count)
    assert found.others == {"decoys": pytest.approx(mean_hits(other, count))}
    ks = [min(6, max(1, round(b * count))) for b in BUDGETS]
    assert found.curve == pytest.approx([mean_hits(wanted, k) / k for k in ks])
    assert found.ranked == sum(v > 0 for v in values)


@given(
    st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0]), min_size=6, max_size=6),
    st.permutations(range(6)),
    st.integers(1, 5),
)
def test_either_copy_is_right_in_every_order_of_ties(values: list[float], neurons: list[int], cut: int) -> None:
    importance = np.array(values).reshape(2, 3)
    copies = [neurons[:cut], neurons[cut:]]
    found = judge(importance, sites_of({*neurons}, 3), copies=[sites_of({*c}, 3) for c in copies])
    slow = [np.mean([bool({*c} & {*order[:2]}) for c in copies]) for order in orders(importance)]
    assert found.either == pytest.approx(np.mean(slow))
    assert judge(importance, sites_of({*neurons}, 3)).either is None


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=6, max_size=6), st.sets(st.integers(0, 5), min_size=1))
def test_without_general_is_the_ranking_of_the_other_neurons(values: list[float], wanted: set[int]) -> None:
    general = {1, 5} - wanted
    found = judge(np.array(values).reshape(2, 3), sites_of(wanted, 3), general=sites_of(general | wanted, 3))
    rest = [i for i in range(6) if i not in general]
    alone = judge(np.array(values)[rest].reshape(1, -1), [(0, rest.index(i)) for i in wanted])
    assert found.without_general == pytest.approx(alone.average_precision)


@given(st.integers(1, 40), st.integers(0, 60), st.integers(0, 2**32))
def test_ends(planted: int, more: int, seed: int) -> None:
    """A perfect ranking scores 1, a reversed one its floor, one without preference what chance does."""
    total = planted + more
    flat = set(np.random.default_rng(seed).permutation(total)[:planted].tolist())
    sites, truth = sites_of(flat, total), membership(sites_of(flat, total), (1, total)).reshape(1, -1)
    perfect = judge(1.0 + truth, sites)
    assert perfect.average_precision == pytest.approx(1) and perfect.precision == perfect.wide_recall == 1
    assert perfect.curve == pytest.approx([min(1, planted / budget(planted, b, total)) for b in BUDGETS])
    worst = judge(2.0 - truth, sites)
    floor = np.mean([i / (more + i) for i in range(1, planted + 1)])
    assert worst.average_precision == pytest.approx(floor)
    assert worst.precision == pytest.approx(max(0, planted - more) / planted)
    flat_one = judge(np.zeros((1, total)), sites)
    assert flat_one.precision == pytest.approx(planted / total) and flat_one.curve == pytest.approx(
        [planted / total] * 9
    )
    noise = judge(np.random.default_rng(seed).random((1, total)), sites)
    for found in (flat_one, noise):
        assert worst.average_precision - 1e-9 <= found.average_precision <= perfect.average_precision + 1e-9


@given(st.integers(0, 2**32), st.integers(1, 5))
def test_only_the_order_counts(seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    importance = rng.integers(-1, levels, (4, 30)).astype(np.float32)
    sites = sites_of(set(rng.permutation(120)[:9].tolist()), 30)
    found = judge(importance, sites)
    assert judge(np.where(importance > 0, np.exp(importance), -1), sites) == found
    assert judge(np.where(importance > 0, importance, -rng.random((4, 30))), sites) == found
    ranking, _ = tied_ranking(importance)
    assert ranking.hits(np.ones(120, dtype=bool), [1, 17, 120]) == pytest.approx([1, 17, 120])


def test_average_precision_of_many_neurons_equals_the_loop() -> None:
    rng = np.random.default_rng(0)
    importance = rng.random((6, 512)).astype(np.float32)
    flat = set(rng.permutation(3072)[:30].tolist())
    (order,) = [np.argsort(-importance.ravel()).tolist()]
    found = judge(importance, sites_of(flat, 512))
    assert found.average_precision == pytest.approx(slow_average_precision(order, flat), rel=1e-9)
    assert found.wide_recall == pytest.approx(len(flat & set(order[:300])) / 30)


def test_what_cannot_be_judged() -> None:
    with pytest.raises(HonesError, match="nothing is planted"):
        judge(np.ones((2, 2)), [])
    for bad in (np.nan, np.inf):
        with pytest.raises(HonesError, match="not finite"):
            judge(np.array([[1.0, bad]]), [(0, 0)])
