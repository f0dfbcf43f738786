"""A process of its own that sweeps heads on a long prompt, and says by how many MiB that made it grow.

python tests/memory_peak.py TASK GIB    # of --memory
"""

import json
import resource
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from hones import VLM, load_items, load_vlm, make_task, write_shapes
from hones.models.interventions import BASELINE, Intervention
from hones.models.place import BUILT_IN_FOLDER
from hones.sweep.memory import GIB, make_plan
from hones.sweep.replay import Replay

SIDE, PATCH = 45, 4  # 2,025 picture tokens
LAYERS, WIDTH, HEADS = 30, 32, 4


def long_llava(folder: Path) -> VLM:
    """A small random LLaVA of thirty layers, whose pictures are long."""
    built_in = AutoConfig.from_pretrained(BUILT_IN_FOLDER / "tiny-llava")
    ids: dict[str, Any] = {name: getattr(built_in.text_config, name) for name in ("bos_token_id", "eos_token_id")}
    vision: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "projection_dim": 16}
    picture_token: dict[str, Any] = {"image_token_id": built_in.image_token_id}
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**vision, num_attention_heads=1, image_size=SIDE * PATCH, patch_size=PATCH),
        text_config=LlamaConfig(
            vocab_size=built_in.text_config.vocab_size,
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            max_position_embeddings=4096,
            **ids,
        ),
        image_seq_length=SIDE**2,
        vision_feature_layer=-1,
        **picture_token,
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    for file in (BUILT_IN_FOLDER / "tiny-llava").iterdir():
        if "token" in file.name:
            shutil.copy(file, folder / file.name)
    processor = json.loads((BUILT_IN_FOLDER / "tiny-llava" / "processor_config.json").read_text())
    edge = SIDE * PATCH
    sizes = {"size": {"shortest_edge": edge}, "crop_size": {"height": edge, "width": edge}}
    processor |= {"patch_size": PATCH, "image_processor": processor["image_processor"] | sizes}
    (folder / "processor_config.json").write_text(json.dumps(processor))
    return load_vlm(str(folder))


def peak() -> float:
    """Of the resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        vlm = long_llava(Path(scratch) / "model")
        items = load_items(write_shapes(Path(scratch) / "data", {"bench": 2}, seed=3)["bench"])
        task = make_task(sys.argv[1], candidates=10)
        members = [(task, example) for example in task.examples(items)[0]]
        edits = [BASELINE, *(Intervention(heads=frozenset({(layer, 0)})) for layer in (2, 28))]
        # as `SweepSettings.memory`, where as much is free as may be asked for
        plan = make_plan(vlm, SIDE**2 + 30, None, free=64 * GIB, most=int(float(sys.argv[2]) * GIB))
        assert vlm.logits(vlm.encode([members[0][1].open_picture()], members[0][1].prompts[:1]), 1).isfinite().all()
        before = peak()
        engine = Replay(vlm, max_new_tokens=2, plan=plan)
        for start in range(0, len(members), plan.pictures):
            engine.statistics(members[start : start + plan.pictures], edits)
        print(json.dumps({"pictures": plan.pictures, "before": before, "grown": peak() - before}))
