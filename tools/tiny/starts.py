"""Starting a built-in model from parts of another that is already trained."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .architecture import TinyParts, make_tokenizer

if TYPE_CHECKING:
    from .train import Trainer


def start_language_model(parts: TinyParts, checkpoint: Path) -> None:
    """Copy the trained LLaVA's language model.

    Rows of embeddings and head go by token; key and value heads are averaged within each group of queries.
    """
    source = torch.load(checkpoint, weights_only=True)["model"]
    state = parts.model.state_dict()
    theirs, ours = make_tokenizer("tiny-llava").get_vocab(), parts.tokenizer.get_vocab()
    shared = [(theirs[token], ours[token]) for token in theirs if token in ours]
    old_rows, new_rows = (torch.tensor(rows) for rows in zip(*shared, strict=True))
    for name, old in source.items():
        if "language_model" not in name and not name.startswith("lm_head"):
            continue
        new = state[name]
        if "embed_tokens" in name or name.startswith("lm_head"):
            new[new_rows] = old[old_rows]
            continue
        if new.shape != old.shape:
            heads = new.shape[0] // 32
            old = old.view(heads, -1, 32, old.shape[1]).mean(1).reshape(new.shape)
        new.copy_(old)


def start_vision(trainer: "Trainer", checkpoint: Path) -> None:
    """Copy the vision part, projector and cell-label heads of a `vision` checkpoint; the language model stays fresh."""
    state = torch.load(checkpoint, weights_only=True)
    vision = {k: v for k, v in state["model"].items() if "language_model" not in k and not k.startswith("lm_head")}
    trainer.model.load_state_dict(vision, strict=False)
    trainer.cell_heads.load_state_dict(state["cells"])
