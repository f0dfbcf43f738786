"""The whole method on a built-in model and built-in pictures: what `hones demo` does.

The pictures are `signs`, on which the built-in models were not trained: a model that is right already has nothing to
gain from steering. Sizes are chosen so that all four tasks take some minutes on two cores: retrieval ranks 1 + 7
captions instead of 1 + 49, a few methods are compared at one budget, and groups of neurons are masked on the first test
items only.
"""

from pathlib import Path

from hones.data.shapes.files import write_shapes
from hones.runs.analysis_settings import AnalysisSettings
from hones.runs.config import Comparing, DataFiles, RunConfig
from hones.runs.record import RunFolder
from hones.runs.steering_config import SteeringConfig

SIZES = {"discovery": 48, "dev": 160, "test": 200}
CANDIDATES = 8
RATIO = 0.03
METHODS = ("dvp", "wanda", "atp", "random")
ANALYSIS = AnalysisSettings(lens_items=1, cards=4, draws=1, limit=24)


def demo_config(model: str, out: Path, seed: int = 0) -> RunConfig:
    """Write the demo's pictures and annotations under `out`/data and return the configuration of its run."""
    RunFolder(out)
    files = write_shapes(out / "data", SIZES, seed, "signs")
    return RunConfig(
        model=model,
        out=out,
        data=DataFiles(**files, images=out / "data" / "images"),
        ratio=RATIO,
        candidates=CANDIDATES,
        steering=SteeringConfig(epochs=3),
        compare=Comparing(methods=METHODS, draws=1, curves=False),
        analyze=ANALYSIS,
    )
