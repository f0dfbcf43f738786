"""What versions before this one recorded of a model, so that their runs go on where they would do the same now.

Their revision of local files is a digest of everything in the folder, and they recorded neither template nor end
tokens: any model of type llava was asked in LLaVA-1.5's wording, any of type paligemma in its own, all others in the
processor's chat template; answers ended where generation_config.json says, or where it does not at the tokenizer's end
token, and the first of these was the one that belongs to an answer. What a base model wrote was not ended by a line's
end. A comparison's curves began at .1 %.
"""

from collections.abc import Mapping
from typing import Any

from hones.errors import HonesError
from hones.files import short_of_two
from hones.method.budget import BUDGETS
from hones.models.conventions import GENERATION, TOKENIZER
from hones.models.loading import former_digest
from hones.models.template import OF_PROCESSOR
from hones.models.vlm import VLM

FORMER_BUDGETS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1]


def is_revision(vlm: VLM, recorded: str) -> bool:
    """Whether a recorded revision is that of this model, now or as it was taken before."""
    if recorded == vlm.revision:
        return True
    digests = recorded.startswith("sha256:") and vlm.revision.startswith("sha256:")
    return digests and recorded == former_digest(vlm.name)


def as_recorded(vlm: VLM, inputs: Mapping[str, Any], recorded: Mapping[str, Any]) -> dict[str, Any]:
    """What a stage depends on in the words of an earlier record, where that means the same."""
    said = dict(inputs)
    if "template" not in recorded and _as_before(vlm):
        said = {key: value for key, value in said.items() if key not in vlm.conventions.decides()}
    if is_revision(vlm, str(recorded.get("revision"))):
        said["revision"] = recorded["revision"]
    if said.get("budgets") == [*BUDGETS] and recorded.get("budgets") == FORMER_BUDGETS:
        said["budgets"] = FORMER_BUDGETS
    return said


def check_words(vlm: VLM, recorded: Mapping[str, Any], run: object) -> None:
    """Whether a model is asked, and its answers end, as in a stage of a run.

    Args:
        recorded: what the stage recorded that it depends on.

    Raises:
        HonesError: they are not; the line names both.
    """
    now = as_recorded(vlm, vlm.conventions.decides(), recorded)
    for key in vlm.conventions.decides():
        if recorded.get(key) != now.get(key):
            raise HonesError(
                "{} was asked with {} = {}, now {}".format(run, key, *short_of_two(recorded.get(key), now.get(key))),
                expected="the same words and end tokens",
                do="see --chat-template (chat_template in Python and in YAML), or --fresh",
            )


def _as_before(vlm: VLM) -> bool:
    """Whether an earlier version asked this model in the same words, and ended its answers in the same places."""
    used = vlm.conventions
    before = used.named[GENERATION] or used.named[TOKENIZER]
    now = [token.id for token in used.ends]
    if {*before} != {*now} or before[:1] != tuple(now[:1]):
        return False
    if not used.template.is_chat:
        return vlm.shows_pictures  # the wording of its type, chosen by itself or given
    own = used.template.source == OF_PROCESSOR or not (vlm.shows_pictures or used.template.given)
    dated = bool(used.template.remarks)
    return own and not dated and vlm.model.config.model_type not in ("llava", "paligemma")
