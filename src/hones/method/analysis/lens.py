"""Delta logit lens: what a group of neurons lets each layer's residual say.

The lens of layer l at the last prompt position, which predicts the first answer token:

    lens[l] = lm_head(norm(r[l]))    [V],    r[l]: residual after layer l [d], norm: the model's final norm

(nostalgebraist 2020); that of the last layer is the model's logits. The delta of a group of neurons is

    delta[l] = lens[l](theta) - lens[l](theta with the group's z = 0)

and its largest entries are the tokens whose lens logit falls most. Layers below the group's first have no delta.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hones.method.analysis.groups import Tasks
from hones.method.analysis.results import LensRow
from hones.method.analysis.tokens import top_tokens
from hones.models.capture import LEAVING, collect
from hones.models.interventions import mask_neurons
from hones.models.sites import Site
from hones.models.vlm import VLM, Encoded
from hones.tasks.base import Example, Task

SHOWN = 5


@torch.no_grad()
def logit_lens(vlm: VLM, encoded: Encoded) -> Float[Tensor, "layers batch vocabulary"]:
    """lens[l] of every layer at the last prompt position, under whatever edits are in force, float32."""
    with collect(vlm.anatomy, LEAVING, lambda x: x[:, -1]) as residuals:
        vlm.logits(encoded, keep=1)
    norm = vlm.anatomy.norm or nn.Identity()
    lens = [vlm.anatomy.lm_head(norm(residuals[number])).float() for number in range(len(vlm.anatomy.layers))]
    return torch.stack([x.to(lens[0].device) for x in lens])


def delta_lens(
    vlm: VLM,
    task: Task,
    examples: Sequence[Example],
    groups: Mapping[Tasks, Sequence[Site]],
    pictures: Sequence[str],
    count: int = SHOWN,
) -> list[LensRow]:
    """The delta of every nonempty group on each example's first prompt, layer by layer; layers where no token's logit
    falls are left out.

    Args:
        pictures: the examples' thumbnails.
    """
    if not examples:
        return []
    encoded = vlm.encode([e.open_picture() for e in examples], [e.prompts[0] for e in examples])
    base = logit_lens(vlm, encoded)
    rows = []
    for tasks, sites in groups.items():
        if not sites:
            continue
        with mask_neurons(vlm.model, sites):
            delta = base - logit_lens(vlm, encoded)
        for n, (example, picture) in enumerate(zip(examples, pictures, strict=True)):
            for layer in range(len(delta)):
                falls = top_tokens(vlm, delta[layer, n], count, positive=True)
                if falls:
                    rows.append(
                        LensRow(
                            task=task.name,
                            item=example.id,
                            prompt=example.prompts[0],
                            target=example.target,
                            picture=picture,
                            group=tasks,
                            layer=layer,
                            falls=falls,
                        )
                    )
    return rows
