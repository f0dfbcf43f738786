"""smol-llava before training: a real language model behind tiny-llava's vision tower.

The language model gets one more word, `<image>`, whose row of the embeddings is zero: pictures take its place, and as
an answer it is as good as impossible. The tower is tiny-llava's with four further layers that begin as the identity
(what they add is zero), so it starts with what it knows of drawings and has room for photographs. The projector is
fresh.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, CLIPVisionConfig, LlamaForCausalLM, LlavaConfig, LlavaForConditionalGeneration
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from hones.models.place import BUILT_IN_FOLDER

PICTURE = "<image>"
GRID = 8  # picture tokens per side
FURTHER_LAYERS = 4


@dataclass
class Parts:
    """What the model consists of before it is saved; the names are those of `tiny.architecture.TinyParts`."""

    model: LlavaForConditionalGeneration
    tokenizer: Any
    image_processor: Any
    grid: int = GRID

    @property
    def language(self) -> Any:
        """The language model's layers."""
        return self.model.model.language_model

    @property
    def tower(self) -> Any:
        """The vision tower."""
        return self.model.model.vision_tower

    @property
    def projector(self) -> Any:
        """From the tower's features to the language model's embeddings."""
        return self.model.model.multi_modal_projector

    def features(self, pixels: Tensor) -> Tensor:
        """Picture tokens [B, 64, d] of pixels [B, 3, 96, 96]."""
        return self.projector(self.seen(pixels))

    def seen(self, pixels: Tensor) -> Tensor:
        """What the tower makes of pixels [B, 3, 96, 96], a vector for each picture token [B, 64, width]."""
        return self.tower(pixels).last_hidden_state[:, 1:]


def build(base: Path, seed: int = 0) -> Parts:
    """The untrained model on the language model of a folder."""
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({"additional_special_tokens": [PICTURE]})
    tokenizer.padding_side = "left"
    tokenizer.chat_template = None  # prompts are wrapped as LLaVA's
    language = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    known = language.config.vocab_size
    language.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    language.model.embed_tokens.weight.data[known:] = 0
    tiny = LlavaForConditionalGeneration.from_pretrained(BUILT_IN_FOLDER / "tiny-llava", dtype=torch.float32)
    of_tiny: Any = tiny.config
    vision = of_tiny.vision_config.to_dict()
    vision["num_hidden_layers"] += FURTHER_LAYERS
    picture_token: dict[str, Any] = {"image_token_id": tokenizer.convert_tokens_to_ids(PICTURE)}
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(**vision),
            text_config=language.config,
            **picture_token,
            image_seq_length=GRID**2,
            vision_feature_layer=-1,
            vision_feature_select_strategy="default",
            tie_word_embeddings=True,
        )
    )
    parts = Parts(model, tokenizer, CLIPImageProcessorPil.from_pretrained(BUILT_IN_FOLDER / "tiny-llava"))
    parts.language.load_state_dict(language.model.state_dict())
    model.tie_weights()
    left_out = parts.tower.load_state_dict(tiny.model.vision_tower.state_dict(), strict=False)
    assert not left_out.unexpected_keys, left_out
    for name, parameter in parts.tower.named_parameters():
        if name in left_out.missing_keys and ("out_proj" in name or "fc2" in name):
            parameter.data.zero_()
    parts.model.requires_grad_(False)
    for part in (parts.tower, parts.projector):
        part.requires_grad_(True)
    return parts
