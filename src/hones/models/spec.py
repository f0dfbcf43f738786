"""Which model, and how it is loaded."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hones.models.vlm import VLM


@dataclass(frozen=True)
class ModelSpec:
    """The arguments of `load_vlm`, which says what they mean; attention is its attn_implementation.

    A spec goes where a model in memory cannot: into a worker, or before a check of everything else.
    """

    name: str
    dtype: str = "auto"
    device: str = "auto"
    revision: str | None = None
    device_map: str | dict[str, Any] | None = None
    attention: str | None = None
    trust_remote_code: bool = False
    chat_template: str | None = None

    def load(self) -> "VLM":
        """The model, loaded and checked.

        Raises:
            HonesError: as `load_vlm`.
        """
        from hones.models.loading import load_vlm

        return load_vlm(
            self.name,
            dtype=self.dtype,
            device=self.device,
            revision=self.revision,
            device_map=self.device_map,
            attn_implementation=self.attention,
            trust_remote_code=self.trust_remote_code,
            chat_template=self.chat_template,
        )
