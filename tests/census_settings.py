"""What no rule gives of a family in the census, by model type."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

from census_files import CensusWords
from census_parts import (
    CODES,
    DOTS_SLIDING,
    ERNIE,
    FASTVIT,
    GLM,
    GLM_MARKS,
    GLM_PICTURE,
    MINIMAX,
    MROPE,
    PE,
    QWEN_PICTURES,
    STEP,
    VISUAL,
    chameleon,
    chart,
    emu3,
    omni,
    ovis2,
)
from transformers.utils import is_torchvision_available


@dataclass(frozen=True)
class Settings:
    """Beside the rules.

    config, image_processor, processor: settings in place of the rules'. picture: what the chat template writes for a
    picture, the processor's picture token where it is not given. marks, plain: further marks of the tokenizer.
    of_class: what the processor's class says and no file can. without: marks that the tokenizer does not have.
    impossible: why no model of the family can be built here. needs: a package without which its vision tower cannot be
    built. stand_in: an image processor that gives the same inputs by name and shape, for where there is no torchvision,
    which the family's own needs; with more attributes (`pictures`).
    """

    config: Mapping[str, Any] | Callable[[CensusWords], Mapping[str, Any]] = field(default_factory=dict)
    image_processor: Mapping[str, Any] = field(default_factory=dict)
    processor: Mapping[str, Any] = field(default_factory=dict)
    picture: str | None = None
    marks: Mapping[str, str] = field(default_factory=dict)
    plain: tuple[str, ...] = ()
    processor_class: str | None = None
    image_processor_class: str | None = None
    impossible: str = ""
    needs: str = ""
    of_class: Mapping[str, Any] = field(default_factory=dict)
    stand_in: str | None = None
    pictures: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()

    def why_not(self) -> str:
        """Why no model of the family can be built here; empty where one can."""
        if self.needs and find_spec(self.needs) is None:
            return f"its vision tower needs the package {self.needs}"
        return self.impossible

    def config_for(self, words: CensusWords) -> Mapping[str, Any]:
        """Settings of the configuration, some of which are ids of this vocabulary."""
        return self.config(words) if callable(self.config) else self.config


MERGED_FIRST = {"insert_layer_id": 0, "downsample_mode": "16x"}
CONVOLVED = {"layer_types": ["conv", "full_attention", "conv"], "block_auto_adjust_ff_dim": False}

SETTINGS: dict[str, Settings] = {
    "glm_ocr": Settings(
        config=GLM,
        processor_class="Glm46VProcessor",
        image_processor_class="Glm46VImageProcessorPil",
        picture=GLM_PICTURE,
        plain=GLM_MARKS,
    ),
    "glm46v": Settings(config=GLM, picture=GLM_PICTURE, plain=GLM_MARKS),
    "glmga": Settings(config=GLM, processor_class="Glm46VProcessor", picture=GLM_PICTURE, plain=GLM_MARKS),
    "glm4v_moe": Settings(config=GLM, image_processor_class="Glm4vImageProcessorPil"),
    "paddleocr_vl": Settings(config={"text_config": MROPE}),
    "qwen2_5_omni_thinker": Settings(
        config=omni,
        picture="<|vision_bos|><|image|><|vision_eos|>",
        processor_class="Qwen2_5OmniProcessor",
        image_processor_class=QWEN_PICTURES,
    ),
    "qwen3_omni_moe_thinker": Settings(
        config=omni,
        picture="<|vision_bos|><|image|><|vision_eos|>",
        processor_class="Qwen3OmniMoeProcessor",
        image_processor_class=QWEN_PICTURES,
    ),
    "minicpmv4_6": Settings(config=MERGED_FIRST, image_processor={"scale_resolution": 64}),
    "minicpmv4_7": Settings(config=MERGED_FIRST, image_processor={"scale_resolution": 64}),
    "minicpm_ocr": Settings(
        config=MERGED_FIRST,
        image_processor={"scale_resolution": 64, "downsample_mode": "16x"},
        stand_in="MiniCPMV4_6ImageProcessorPil",
    ),
    "qwen3_vl_moe": Settings(image_processor_class=QWEN_PICTURES),
    "hunyuan_vl": Settings(
        config={"text_config": MROPE | {"head_dim": 8}}, picture="<|image_start|><|image|><|image_end|>"
    ),
    "cohere_compass": Settings(
        config={"text_config": {"rope_parameters": {"full_attention": MROPE["rope_parameters"]}}}
    ),
    "kosmos-2": Settings(
        config={"latent_query_num": 4, "text_config": {"layers": 3}},
        processor_class="Kosmos2Processor",
        processor={"num_patch_index_tokens": 4},
        of_class={"num_image_tokens": 4},
        marks={"unk_token": "<unk>"},
        picture="",
    ),
    "cosmos3_omni": Settings(processor_class="Qwen3VLProcessor"),
    "diffusion_gemma": Settings(
        config={"text_config": {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 24}},
        image_processor_class="Gemma4ImageProcessorPil",
    ),
    "emu3": Settings(config=emu3, plain=("<|extra_200|>", *VISUAL)),
    "chameleon": Settings(
        config=chameleon,
        marks={"sep_token": "<reserved08706>"},
        plain=("<image>", *CODES),
        processor={"image_seq_length": 256},
    ),
    "ovis2": Settings(config=ovis2, plain=("<IMG_START>", "<IMG_GRID>")),
    "qianfan_ocr": Settings(picture="<image>", processor={"image_seq_length": 4}),
    "blip-2": Settings(picture="", without=("image_token",), plain=("<image>",)),
    "instructblip": Settings(picture="", without=("image_token",), plain=("<image>",)),
    "got_ocr2": Settings(
        config={"vision_config": {"image_size": 64, "patch_size": 4}},
        image_processor={"size": {"height": 64, "width": 64}},
        of_class={"num_image_tokens": 16},
    ),
    "gpt_neo": Settings(
        config={
            "attention_types": [[["global", "local", "global"], 1]],
            "attention_layers": ["global", "local", "global"],
        }
    ),
    "bamba": Settings(config={"attn_layer_indices": [1]}),
    "granitemoehybrid": Settings(
        config={"num_local_experts": 0, "layer_types": ["mamba", "attention", "mamba"], "shared_intermediate_size": 24}
    ),
    "kimi_linear": Settings(config={"num_key_value_heads": 4, "num_experts": 8}),
    "jamba": Settings(config={"attn_layer_period": 3, "attn_layer_offset": 1, "num_experts": 1}),
    "lfm2": Settings(config=CONVOLVED),
    "lfm2_moe": Settings(config=CONVOLVED),
    "lfm2_vl": Settings(config={"text_config": CONVOLVED}, stand_in="Lfm2VlPictures"),
    "mamba2": Settings(config={"num_heads": 8, "head_dim": 8}),
    "gemma3n_text": Settings(config={"intermediate_size": 24, "activation_sparsity_pattern": [0.0] * 3}),
    "dots1": Settings(config={"n_routed_experts": 4, "n_shared_experts": 1}),
    "pp_chart2table": Settings(
        config=chart,
        image_processor={"size": {"height": 64, "width": 64}},
        picture="<img>" + "<imgpad>" * 4 + "</img>",
        plain=("<img>", "<imgpad>", "</img>"),
    ),
    "cohere2_vision": Settings(
        stand_in="GotOcr2ImageProcessorPil", pictures={"patch_size": 2}, image_processor={"patch_size": 2}
    ),
    "kimi_k25": Settings(config={"projection_hidden_size": 16, "text_config": {"num_key_value_heads": 4}}),
    "inkling2": Settings(
        config={"text_config": {"swa_head_dim": 8}}, image_processor={"size": {"height": 16, "width": 16}}
    ),
    "unlimited_ocr": Settings(config={"vision_config": {"sam_config": {"downsample_channels": [16, 16]}}}),
    "muse_glimmer": Settings(stand_in=QWEN_PICTURES, config={"out_hidden_size": 64}),
    "ernie4_5_vl_moe": Settings(config=ERNIE),
    "kosmos-2.5": Settings(
        config={"latent_query_num": 16, "vision_config": {"patch_embed_hidden_size": 192, "num_hidden_layers": 1}},
        processor_class="Kosmos2_5Processor",
        of_class={"images_kwargs": {"max_patches": 64, "return_tensors": "pt"}},
        processor={"num_image_tokens": 16},
        picture="",
    ),
    "aria": Settings(
        config={"vision_config": {"image_size": 490, "patch_size": 70}, "projector_patch_to_query_dict": {"49": 4}},
        of_class={"images_kwargs": {"max_image_size": 490, "split_image": False}},
        processor={"size_conversion": {"490": 4}},
    ),
    "step3p7": Settings(
        config={"vision_config": {"image_size": 64}, "text_config": STEP},
        stand_in="DeepseekOcr2ImageProcessorPil",
        image_processor={"size": {"height": 64, "width": 64}},
        pictures={
            "crop_to_patches": False,
            "tile_size": 64,
            "vision_patch_size": 8,
            "downsampler_stride": 4,
            "patch_size": 32,
        },
        plain=("<patch_start>", "<patch_end>", "<patch_newline>", "<im_start>", "<im_end>"),
    ),
    "minimax_m3_vl": Settings(stand_in=QWEN_PICTURES, plain=MINIMAX),
    "glm5_next": Settings(
        config={
            "text_config": {
                "num_key_value_heads": 4,
                "qk_rope_head_dim": 0,
                "linear_num_heads": 4,
                "linear_head_dim": 8,
            }
        }
    ),
    "mistral_large4": Settings(
        config={
            "text_config": {"num_key_value_heads": 4, "kv_source_layers": [0, 1, 2], "indexer_types": ["full"] * 3}
        },
        plain=("[IMG]", "[IMG_BREAK]", "[IMG_END]"),
        processor={"patch_size": 8, "spatial_merge_size": 2},
    ),
    "qwen4_exp": Settings(
        config={
            "text_config": {
                "indexer_n_heads": 2,
                "indexer_kv_heads": 1,
                "indexer_head_dim": 8,
                "indexer_budget": 8,
                "indexer_compress_ratio": 4,
            }
        }
    ),
    "muse_spark": Settings(
        config={"audio_config": {"num_hidden_layers": 4, "hidden_sizes": [8] * 4, "out_hidden_size": 32}}
    ),
    "dots3_note": Settings(
        config={
            "text_config": {
                "num_key_value_heads": 4,
                "shared_experts_intermediate_size": 24,
                "per_layer_config": {0: DOTS_SLIDING, 1: DOTS_SLIDING},
            },
            "vision_config": {"adapter_in_dim": 16, "adapter_out_dim": 32},
            "audio_config": {"adapter_input_size": 16, "adapter_out_dim": 32},
        }
    ),
    "idefics2": Settings(processor={"image_seq_len": 4}),
    "granite_docling": Settings(processor={"image_seq_len": 1}),
    "deepseek_vl_hybrid": Settings(
        config={"high_res_vision_config": {"image_size": 64, "output_channels": 8, "global_attn_indexes": [1]}},
        image_processor={"high_res_size": {"height": 64, "width": 64}},
    ),
    "deepseek_ocr2": Settings(
        config={
            "text_config": {"mlp_layer_types": ["sparse"] * 3},
            "vision_config": {"sam_config": {"image_size": 192, "patch_size": 4, "downsample_channels": [16, 16]}},
        },
        image_processor={"size": {"height": 192, "width": 192}, "tile_size": 192},
        processor={"patch_size": 4},
    ),
    "granite4_vision": Settings(
        config={
            "vision_config": {"hidden_size": 64},
            "deepstack_layer_map": [[0, 0]],
            "spatial_target_layers": [1, 2],
            "downsample_rate": "1/2",
        },
        processor={"downsample_rate": "1/2"},
    ),
    "gemma3n": Settings(
        config={
            "text_config": {"intermediate_size": 24, "activation_sparsity_pattern": [0.0] * 3},
            "vision_config": {"model_args": {"channel_multiplier": 0.05}, "hidden_size": 2048},
            "vision_soft_tokens_per_image": 256,
        },
        processor={"image_seq_length": 256},
        needs="timm",
    ),
    "gemma4": Settings(
        config={"vision_config": {"model_type": "gemma4_vision"}},
        image_processor={"max_soft_tokens": 70},
        processor={"image_seq_length": 70},
    ),
    "gemma4_unified": Settings(
        config={
            "vision_config": {
                "model_type": "gemma4_unified_vision",
                "model_patch_size": 8,
                "patch_size": 8,
                "pooling_kernel_size": 1,
                "mm_embed_dim": 32,
                "mm_posemb_size": 64,
                "output_proj_dims": 32,
            }
        },
        stand_in="Gemma4ImageProcessorPil",
        image_processor={"pooling_kernel_size": 1, "max_soft_tokens": 70},
    ),
    "shieldgemma2": Settings(impossible="a classifier: its model has no lm_head and does not write"),
    "vipllava": Settings(
        config={"vision_feature_layers": [-1, -2]}, processor={"vision_feature_select_strategy": "default"}
    ),
    "evolla": Settings(impossible="it reads proteins, no pictures"),
    "instructblipvideo": Settings(impossible="its processor takes videos alone"),
    "fast_vlm": Settings(
        config={"vision_config": FASTVIT, "image_seq_length": 4},
        needs="timm",
        processor_class="LlavaProcessor",
        image_processor_class="CLIPImageProcessorPil",
        image_processor={"size": {"shortest_edge": 128}, "crop_size": {"height": 128, "width": 128}},
        processor={"patch_size": 64, "num_additional_image_tokens": 0, "vision_feature_select_strategy": "full"},
    ),
    "perception_lm": Settings(
        config={"vision_config": PE, "projector_pooling_ratio": 2},
        needs="timm",
        processor={"pooling_ratio": 2},
        image_processor={"tile_size": 32, "max_num_tiles": 4},
    ),
    "fuyu": Settings(impossible="its image processor for PIL fails on every picture (`transpose` of a numpy array)"),
}

IN_FRONT = "its processor puts the picture before the prompt"
TORCHVISION = "a stand-in for its image processor, which needs torchvision"
PER_LAYER = "what the branch of its per-layer inputs makes of neurons is not what they write"


def settings_of(model_type: str) -> Settings:
    """What no rule gives of a family; where torchvision is here nothing stands in for its image processor."""
    own = SETTINGS.get(model_type, Settings())
    return replace(own, stand_in=None) if is_torchvision_available() else own


REMARKS = {
    "blip": "BERT's layers, with a second attention over the picture and norms behind the residual",
    "git": "BERT's layers, with norms behind the residual, where what a neuron writes is not known",
    "pi0": "a policy for robots: it writes actions, no text",
    "kosmos-2": f"{IN_FRONT}; with a chat template, which its checkpoints may lack",
    "step3p7": "with as many heads in every layer",
    "ernie4_5_vl_moe": "experts for text, others for a picture's tokens",
    "mistral_large4": "its indexer chooses positions in prompts longer than those here",
    "glm5_next": "hyper-connections",
    "gemma3n_text": "AltUp's",
    "gpt_oss": "experts with biases, which are no neuron's",
    "blip-2": f"{IN_FRONT}; with a chat template, which its checkpoints may lack",
    "instructblip": f"{IN_FRONT}, and its picture part reads the question; with a chat template",
    "kosmos-2.5": f"{IN_FRONT} and takes padding for right of it; when it writes, it counts padding as positions",
    "chameleon": "its separator stands between prompt and answer; with a chat template, which its checkpoints may lack",
    "gemma4": f"heads of other widths in some layers; {PER_LAYER}",
    "gemma4_text": f"a number behind each layer, norm after down_proj; {PER_LAYER}",
    "granite4_vision": "picture features are added to the input of layers",
    "granite_docling": "picture features are added between layers",
    "hunyuan_vl": "it numbers pictures through the batch; here in each row, so that no row depends on those before it",
    "hyperclovax_vision_v2": "norm after down_proj: the true write-in through it",
    "qianfan_ocr": "its template has another mark than the picture's own token",
}
"""What is worth knowing of a type, whatever its outcome."""
if not is_torchvision_available():
    for stood_in in (name for name, own in SETTINGS.items() if own.stand_in is not None):
        REMARKS[stood_in] = "; ".join(filter(None, (TORCHVISION, REMARKS.get(stood_in, ""))))
