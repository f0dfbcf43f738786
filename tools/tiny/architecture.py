"""The built-in models before training: transformers' own LLaVA and Qwen2.5-VL classes at a small size.

Both share one byte-level tokenizer (any text encodes) whose merges are the generator's words, so that the Qwen language
model can start from the trained LLaVA. Shapes: 6 layers, d = 192, 6 heads of 32 (Qwen: 2 key-value heads), 640 FFN
neurons a layer; pictures of 96 x 96 become 64 tokens (LLaVA, CLIP patch 12) or 36 (Qwen, patch 8, merge 2).
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from hones.data.shapes.language import captions, describe, questions
from hones.data.shapes.scene import CHARACTERS, COLOURS, SHAPES, SIZE, Scene, make_scene
from hones.tasks import caption, ocr, retrieval, vqa

LAYERS, WIDTH, HEADS, FFN = 6, 192, 6, 640
NAMES = ("tiny-llava", "tiny-qwen2.5-vl")

_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass
class TinyParts:
    """What a built-in model consists of before it is saved."""

    model: Any  # LlavaForConditionalGeneration or Qwen2_5_VLForConditionalGeneration
    tokenizer: Any
    image_processor: Any
    grid: int  # picture tokens per side


def build(name: str, seed: int = 0) -> TinyParts:
    """A freshly initialised built-in model with its tokenizer and image processor."""
    torch.manual_seed(seed)
    return _build_llava() if name == "tiny-llava" else _build_qwen()


def _text_config(vocabulary: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": WIDTH,
        "intermediate_size": FFN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
    }


def _build_llava() -> TinyParts:
    tokenizer = make_tokenizer("tiny-llava")
    picture_token: dict[str, Any] = {"image_token_id": tokenizer.convert_tokens_to_ids("<image>")}
    config = LlavaConfig(
        **picture_token,
        vision_config=CLIPVisionConfig(
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            image_size=SIZE,
            patch_size=12,
            projection_dim=128,
        ),
        text_config=LlamaConfig(
            **_text_config(len(tokenizer)),
            num_key_value_heads=HEADS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        image_seq_length=64,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}, do_convert_rgb=True
    )
    return TinyParts(LlavaForConditionalGeneration(config), tokenizer, processor, grid=8)


def _build_qwen() -> TinyParts:
    tokenizer = make_tokenizer("tiny-qwen2.5-vl")
    ids = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": 4,
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_heads": 4,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 48,
            "fullatt_block_indexes": [1, 3],
            "out_hidden_size": WIDTH,
        },
        text_config={
            **_text_config(len(tokenizer)),
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
    )
    processor = Qwen2VLImageProcessorPil(
        patch_size=8,
        merge_size=2,
        temporal_patch_size=2,
        size={"shortest_edge": SIZE * SIZE, "longest_edge": 4 * SIZE * SIZE},
    )
    return TinyParts(Qwen2_5_VLForConditionalGeneration(config), tokenizer, processor, grid=6)


def corpus(scenes: Iterable[Scene]) -> list[str]:
    """Every sentence that the generator says about some scenes: what a tokenizer is trained on."""
    sentences = []
    for scene in scenes:
        rng = random.Random(f"corpus/{scene.seed}")
        sentences += captions(describe(scene, rng))
        for _, question, answer in questions(scene, rng):
            sentences += [question, answer]
    return sentences


def make_tokenizer(name: str) -> Any:
    """Byte-level BPE with one token per word of the generator and of the prompts; labels stay single characters."""
    prompts = [
        vqa.PROMPT,
        ocr.PROMPT,
        caption.PROMPT,
        retrieval.PROMPT,
        "Yes No yes no",
        " Yes No yes no",
        "user\nassistant\n",
    ]
    labels = [f" {c} {c}" for c in CHARACTERS]
    sentences = corpus(make_scene(f"tokenizer/{i}") for i in range(2000))
    text = 50 * prompts + 50 * labels + sentences + [f" {sentence}" for sentence in sentences]
    if name == "tiny-qwen2.5-vl":  # its chat template starts an answer without a space
        text += 50 * ["Yes", "No", "yes", "no", *COLOURS, *SHAPES]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        text,
        trainers.BpeTrainer(
            vocab_size=768, min_frequency=45, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        ),
    )
    common = [AddedToken(t, special=True) for t in ("<pad>", "<s>", "</s>", "<image>")]
    words = [AddedToken(t, special=False) for t in ("USER:", "ASSISTANT:")]
    chat = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    core.add_special_tokens(common)
    core.add_tokens(words)
    core.add_special_tokens([AddedToken(t, special=True) for t in chat])
    if name == "tiny-llava":
        start = core.token_to_id("<s>")
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", start)])
        return PreTrainedTokenizerFast(
            tokenizer_object=core,
            bos_token="<s>",
            eos_token="</s>",
            pad_token="<pad>",
            padding_side="left",
            extra_special_tokens={"image_token": "<image>"},
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<pad>",
        padding_side="left",
        chat_template=_CHAT_TEMPLATE,
        extra_special_tokens={
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "vision_bos_token": "<|vision_start|>",
            "vision_eos_token": "<|vision_end|>",
        },
    )
