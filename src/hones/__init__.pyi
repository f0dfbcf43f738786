# The public names, each written once: `__init__.py` imports them from here when they are first used.
from .data.items import Items as Items
from .data.items import load_items as load_items
from .data.shapes.files import write_shapes as write_shapes
from .data.words import write_words as write_words
from .errors import BadItem as BadItem
from .errors import HonesError as HonesError
from .method.analysis.explain import explain as explain
from .method.analysis.explanation import Explanation as Explanation
from .method.analysis.picture_map import PictureMap as PictureMap
from .method.analysis.results import Analysis as Analysis
from .method.analysis.where import picture_maps as picture_maps
from .method.head_steps import localize_heads_conditionally as localize_heads_conditionally
from .method.head_subsets import localize_heads_by_subsets as localize_heads_by_subsets
from .method.head_ways import Conditional as Conditional
from .method.head_ways import Subsets as Subsets
from .method.heads import HeadResult as HeadResult
from .method.heads import HeadScore as HeadScore
from .method.heads import localize_heads as localize_heads
from .method.masking import (
    MaskingResult as MaskingResult,
)
from .method.masking import (
    evaluate_masking as evaluate_masking,
)
from .method.masking import (
    layer_matched_random as layer_matched_random,
)
from .method.neurons import (
    RankedNeuron as RankedNeuron,
)
from .method.neurons import (
    attribute_neurons as attribute_neurons,
)
from .method.neurons import (
    select_neurons as select_neurons,
)
from .method.steering.evaluate import SteeringResult as SteeringResult
from .method.steering.evaluate import evaluate_scales as evaluate_scales
from .method.steering.results import Evidence as Evidence
from .method.steering.settings import SteeringSettings as SteeringSettings
from .method.steering.train import learn_scales as learn_scales
from .models.interventions import (
    keep_neurons as keep_neurons,
)
from .models.interventions import (
    mask_neurons as mask_neurons,
)
from .models.interventions import (
    replace_heads as replace_heads,
)
from .models.interventions import (
    scale_neurons as scale_neurons,
)
from .models.loading import attach as attach
from .models.loading import load_vlm as load_vlm
from .models.vlm import VLM as VLM
from .rivals import METHODS as METHODS
from .rivals.base import Context as Context
from .rivals.base import Method as Method
from .rivals.compare import Ranking as Ranking
from .rivals.compare import compare_methods as compare_methods
from .rivals.results import Comparison as Comparison
from .runs.analysis import RunStudy as RunStudy
from .runs.config import RunConfig as RunConfig
from .runs.config import read_config as read_config
from .runs.pipeline import run_config as run_config
from .runs.published import Published as Published
from .runs.published import read_published as read_published
from .runs.record import RunFolder as RunFolder
from .runs.source import read_run as read_run
from .runs.study import Study as Study
from .sharing.ask import Asked as Asked
from .sharing.ask import ask as ask
from .sharing.export import Exported as Exported
from .sharing.export import export_scales as export_scales
from .sharing.origin import scales_for as scales_for
from .sharing.publish import publish as publish
from .sharing.push import push_export as push_export
from .sweep.verify import Verification as Verification
from .sweep.verify import verify as verify
from .tasks import make_task as make_task
from .tasks.base import BarePrompt as BarePrompt
from .tasks.base import Example as Example
from .tasks.base import Task as Task

__version__: str
