"""Uncertainty: intervals as text, and what a sweep measured against the slow obvious definition."""

from hones.stats import Interval


def test_an_interval_is_written_as_a_change_or_as_a_level() -> None:
    change = Interval(0.1234, -0.1, 0.15)
    assert str(change) == f"{change}" == f"{change:+.3f}" == "+0.123 [-0.100, +0.150]"
    assert f"{change:.2f}" == "0.12 [-0.10, 0.15]" and f"{change:.3g}" == "0.123 [-0.1, 0.15]"
    assert change.bounds(".1f") == "[-0.1, 0.1]" and change.bounds() == "[-0.100, +0.150]"
