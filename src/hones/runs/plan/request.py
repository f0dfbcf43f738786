"""What a plan is asked for: the model, the data and the stages' sizes, from options or from a run's configuration."""

from dataclasses import dataclass, field
from pathlib import Path

from hones.rivals import make_methods
from hones.rivals.compare import BUDGETS
from hones.errors import HonesError
from hones.runs.config import RunConfig
from hones.method.steering.controls import HONES, Steering
from hones.runs.ways import make_steerings
from hones.runs.study import DEFAULT_RATIO
from hones.runs.stages import DEFAULT_SEED
from hones.sweep.run import MAX_NEW_TOKENS
from hones.tasks import TASKS, make_task

SPLITS = ("discovery", "dev", "test", "ood")


@dataclass(frozen=True)
class Request:
    """Everything that a forecast depends on.

    data: the annotation file of each split; all but discovery may be missing. ood_images: pictures of the last. also:
    names of tasks that the learned scales of the others are tested on, those among `tasks`. counts: how many items of a
    split, where not all. methods: compared ones, empty: no comparison. analyze: random sets per group, None: no
    analysis. racing: least and most share of the cells that a race is supposed to run; None: no scenario. memory: GiB
    of a device, None: this device's. tflops: reached on a device elsewhere. calibrate: measure this device now. load:
    minutes to load a copy.
    """

    model: str
    data: dict[str, Path]
    tasks: tuple[str, ...] = tuple(TASKS)
    images: Path | None = None
    ood_images: Path | None = None
    also: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    revision: str | None = None
    trust_remote_code: bool = False
    dtype: str = "auto"
    device: str = "auto"
    top_k: int | None = None
    ratio: float = DEFAULT_RATIO
    draws: int = 5
    candidates: int = 50
    max_new_tokens: int = MAX_NEW_TOKENS
    batch_size: int | None = None
    methods: tuple[str, ...] = ()
    curves: bool = True
    ways: tuple[str, ...] = (HONES,)
    seeds: int = 1
    epochs: int = 2
    step_size: int = 4
    analyze: int | None = None
    racing: tuple[float, float] | None = None
    gpus: int = 1
    memory: float | None = None
    tflops: float | None = None
    calibrate: bool = False
    load: float = 0.0
    seed: int = DEFAULT_SEED

    def __post_init__(self) -> None:
        """Raises HonesError for sizes that mean nothing."""
        if self.memory is not None and not self.memory > 0:
            raise HonesError(f"--memory {self.memory:g}", expected="the GiB of one device, above 0")
        if self.tflops is not None and self.calibrate:
            raise HonesError("--tflops and --calibrate", expected="one of them: a given rate, or this device's")
        if self.racing is not None and not 0 < self.racing[0] <= self.racing[1] <= 1:
            raise HonesError(
                f"--racing-share {self.racing[0]:g}-{self.racing[1]:g}", expected="a share of the cells such as 0.1-0.2"
            )
        make_methods(",".join(self.methods)) if self.methods else None
        self.steerings()

    def steerings(self) -> list[Steering]:
        """The ways to steer."""
        return make_steerings(",".join(self.ways))

    @property
    def ratios(self) -> list[float]:
        """The budgets at which a comparison masks."""
        return [*dict.fromkeys([self.ratio, *(BUDGETS if self.curves else ())])]


def request_of(config: RunConfig, **of_plan) -> Request:
    """What `hones run` would do with a configuration; of_plan: gpus, memory, tflops, calibrate, racing, load."""
    steering = config.steering
    splits = {split: getattr(config.data, split) for split in SPLITS if split != "ood"}
    splits |= {} if steering.ood is None else {"ood": steering.ood}
    also = (config.tasks if steering.also is None else steering.also) if steering.wants_evidence else ()
    counts = {split: n for split in SPLITS if (n := getattr(config.limit, split)) is not None}
    return Request(
        model=config.model,
        data=splits,
        tasks=config.tasks,
        images=config.data.images,
        ood_images=steering.ood_images,
        also=tuple(make_task(name, candidates=config.candidates).name for name in also),
        counts=counts,
        revision=config.revision,
        trust_remote_code=config.trust_remote_code,
        dtype=config.dtype,
        device=config.device,
        top_k=config.top_k,
        ratio=config.ratio,
        draws=config.draws,
        candidates=config.candidates,
        max_new_tokens=config.max_new_tokens,
        batch_size=config.batch_size,
        methods=() if config.compare is None else config.compare.methods,
        curves=config.compare is None or config.compare.curves,
        ways=steering.methods or (HONES,),
        seeds=len(steering.seeds or (0,)),
        epochs=steering.epochs,
        step_size=steering.training.batch_size,
        analyze=None if config.analyze is None else config.analyze.draws,
        seed=config.seed,
        **of_plan,
    )
