"""selective: neurons that this task needs, and other tasks and plain text do not, found in rounds.

What `rounds` finds may be needed by all that a model does. So each round takes the gradient of every task at the same
gates, and of plain text, and chooses by

    s = n(g_task) - k max(0, max_o n(g_o)),    n(g) = g / root mean square of g over all neurons,

where g_o is dV/dg of another task o annotated for the same items (hones+'s contrast of its own answers), or of the mean
log-probability of a token of the paragraphs that ship with us (`hones.tasks.plain_text`). n makes nats of different
tasks comparable: a neuron is chosen where it counts for this task more than k times what it counts for the one that it
serves most beside. What closing it would *raise* elsewhere (g_o < 0) is no credit. The gradients are taken anew in each
round, so what begins to stand in for the closed neurons in another task is spared from then on.

Ranking, budget and rounds: `hones.rivals.rounds`. The cost is that of `rounds` for all tasks together. Another task whose
items all have one answer has no contrast and is left out with a warning, and so is plain text where the model reads it
no better than one that gives every token of its vocabulary the same probability.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hones.errors import HonesWarning, TaskStops
from hones.models.interventions import BASELINE, scaling
from hones.models.vlm import VLM
from hones.rivals.base import Context, Importance
from hones.rivals.gates import Gated, Job
from hones.rivals.hones_plus import knowledge_of
from hones.rivals.rounds import Rounds
from hones.sweep.plain_text import Paragraphs, plain_text_losses, plain_text_of
from hones.sweep.run import SweepSettings
from hones.tasks.base import Task
from hones.tasks.plain_text import paragraphs

AGAINST = 1.0
"""k."""
