"""What versions before this one recorded of a model, so that their runs go on where they would do the same now.

Their revision of local files is a digest of everything in the folder, and they recorded neither template nor end
tokens: any model of type llava was asked in LLaVA-1.5's wording, any of type paligemma in its own, all others in the
processor's chat template; answers ended where generation_config.json says, or where it does not at the tokenizer's end
token, and the first of these was the one that belongs to an answer. What a base model wrote was not ended by a line's
end.
"""

from collections.abc import Mapping
from typing import Any

from hones.models.conventions import GENERATION, TOKENIZER
from hones.models.loading import former_digest
from hones.models.template import NONE, OF_PROCESSOR
from hones.models.vlm import VLM


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
    return said


def _as_before(vlm: VLM) -> bool:
    """Whether an earlier version asked this model in the same words, and ended its answers in the same places."""
    used = vlm.conventions
    before = used.named[GENERATION] or used.named[TOKENIZER]
    now = [token.id for token in used.ends]
    if {*before} != {*now} or before[:1] != tuple(now[:1]):
        return False
    if not used.template.is_chat:
        return used.template.source != NONE
    own = used.template.source == OF_PROCESSOR or not vlm.shows_pictures
    dated = bool(used.template.remarks)
    return own and not dated and vlm.model.config.model_type not in ("llava", "paligemma")
