"""What steering changes, as it is written to RUN/T/steering/evidence.json."""

from dataclasses import dataclass

from hones.stats import Interval
from hones.tabular import Rows, Tabular

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True)
class SteeredBy:
    """One way to steer on one file of items.

    steered: the metric, mean over seeds; by_seed: of each. gain: steered - base. hones_advantage: HONES's metric minus
    this one, so positive means that HONES is better; p_value: of that, two-sided, paired bootstrap; both None for HONES
    itself. gain_p: of the gain.
    """

    method: str
    neurons: int
    steered: Interval
    by_seed: tuple[float, ...]
    gain: Interval
    gain_p: float
    hones_advantage: Interval | None = None
    p_value: float | None = None


@dataclass(frozen=True)
class Tested:
    """Every way to steer on the same items of one file. base: the model itself."""

    file: str
    metric_name: str
    items: int
    base: Interval
    methods: tuple[SteeredBy, ...]


@dataclass(frozen=True)
class Elsewhere:
    """Another task under the scales that HONES learned: its metric without and with them, and the paired change."""

    task: str
    metric_name: str
    items: int
    base: Interval
    steered: Interval
    change: Interval


@dataclass(frozen=True)
class LayerScales:
    """The scales of one layer: how many, their mean, and their quantiles at QUANTILES."""

    layer: int
    count: int
    mean: float
    quantiles: tuple[float, ...]


@dataclass(frozen=True)
class ScaleSpread:
    """How a way's learned scales are distributed, those of all seeds together.

    count: scales of all seeds. clamped: the share at the bound +-max_scale. deviation: standard deviation. quantiles:
    at QUANTILES. layers: those with scales.
    """

    method: str
    count: int
    mean: float
    deviation: float
    quantiles: tuple[float, ...]
    clamped: float
    max_scale: float
    layers: tuple[LayerScales, ...]


@dataclass(frozen=True)
class Evidence(Tabular):
    """Everything measured of steering one task. out_of_domain: on a file that nothing was learned on."""

    task: str
    seeds: tuple[int, ...]
    test: Tested
    elsewhere: tuple[Elsewhere, ...]
    out_of_domain: Tested | None
    scales: tuple[ScaleSpread, ...]

    def tables(self) -> dict[str, Rows]:
        """The ways to steer on the test items, out of domain, the other tasks, and the scales."""
        found = {"steering": _rows(self.test)}
        if self.out_of_domain is not None:
            found["out of domain"] = _rows(self.out_of_domain)
        if self.elsewhere:
            found["other tasks"] = [dict(vars(e)) for e in self.elsewhere]
        hidden = ("quantiles", "layers")
        named = [f"q{100 * q:g}" for q in QUANTILES]
        found["scales"] = [
            {k: v for k, v in vars(s).items() if k not in hidden} | dict(zip(named, s.quantiles, strict=True))
            for s in self.scales
        ]
        return found


def _rows(tested: Tested) -> Rows:
    return [
        {"metric_name": tested.metric_name, "items": tested.items, "base": tested.base}
        | {k: v for k, v in vars(m).items() if k != "by_seed"}
        for m in tested.methods
    ]
