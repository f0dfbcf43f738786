"""Train, export and evaluate the built-in model without pictures: what `make tiny-text` runs.

    python -m tiny.words --out checkpoints

Transformers' own Llama class: 5 layers, d = 128, 4 heads of 32, 384 FFN neurons a layer; a byte-level tokenizer (any
text encodes) with one token per word of the four tasks of `hones.tasks.words`. It is taught to answer them and to end
behind the answer, by cross-entropy over answer and end token, on prompts drawn anew in every step; their seeds are not
those of any file that `write_words` writes. The weights are the mean of the last steps' (an exponential average).
"""

import argparse
import json
import math
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from hones import load_items, load_vlm, make_task
from hones.data.unified import Item
from hones.data.words import LINES, OPPOSITE_OF, ROUNDS, draw_item, write_words
from hones.models.interventions import BASELINE
from hones.models.place import BUILT_IN_FOLDER
from hones.stats import UNEDITED
from hones.sweep.measure import measure
from hones.tasks.words import PROMPTS, WordTask

NAME = "tiny-text"
LAYERS, WIDTH, HEADS, FFN = 5, 128, 4, 384
ROWS, STEPS, PEAK, KEPT = 64, 800, 3e-3, 0.99
TASKS = {name: WordTask(name) for name in PROMPTS}
TEST, SEED = 200, 20  # items of the evaluation


def make_tokenizer() -> Any:
    """Byte-level BPE whose merges are the words of prompts and answers, with a space before them or at the start."""
    words = [*OPPOSITE_OF, *(word for line in (*LINES, *ROUNDS) for word in line.split())]
    fixed = [word for prompt in PROMPTS.values() for word in prompt.split() if "{" not in word]
    text = 50 * [f" {word}" for word in [*words, *fixed]] + 50 * [prompt.split()[0] for prompt in PROMPTS.values()]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=1024, min_frequency=45, initial_alphabet=alphabet, show_progress=False)
    )
    core.add_special_tokens([AddedToken(t, special=True) for t in ("<pad>", "<s>", "</s>")])
    start = core.token_to_id("<s>")
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", start)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>", padding_side="left"
    )


def build(tokenizer: Any, seed: int) -> LlamaForCausalLM:
    """The model before training."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=FFN,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            max_position_embeddings=512,
            rms_norm_eps=1e-5,
            tie_word_embeddings=False,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def batch(tokenizer: Any, name: str, rows: int) -> tuple[Tensor, Tensor]:
    """Tokens [rows, T], padded on the right, and what they are to predict, -100 where nothing is asked."""
    examples = []
    for row in range(rows):
        item = Item.model_validate({"item_id": row, **draw_item(f"training/{name}/{row}")})
        examples.append(TASKS[[*TASKS][row % len(TASKS)]].example(item, Path()))
    asked = tokenizer([str(e.prompts[0]) for e in examples])["input_ids"]
    answers = tokenizer([f" {e.target}" for e in examples], add_special_tokens=False)["input_ids"]
    ids, labels = [], []
    for prompt, answer in zip(asked, answers, strict=True):
        predicted = [*answer, tokenizer.eos_token_id]
        ids.append(torch.tensor(prompt + predicted))
        labels.append(torch.tensor([-100] * (len(prompt) - 1) + predicted + [-100]))
    padded = torch.nn.utils.rnn.pad_sequence(ids, True, tokenizer.pad_token_id)
    return padded, torch.nn.utils.rnn.pad_sequence(labels, True, -100)


def train(model: LlamaForCausalLM, tokenizer: Any, steps: int) -> list[str]:
    """Train in place; returns the log."""
    started, log = time.monotonic(), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, betas=(0.9, 0.98), weight_decay=0.05)
    average = {name: value.detach().clone() for name, value in model.named_parameters()}
    for step in range(steps):
        rate = PEAK * min(1.0, (step + 1) / 100) * (0.02 + 0.98 * (1 + math.cos(math.pi * step / steps)) / 2)
        for group in optimizer.param_groups:
            group["lr"] = rate
        ids, labels = batch(tokenizer, str(step), ROWS)
        logits = model(input_ids=ids).logits
        losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="none")
        optimizer.zero_grad()
        (losses.sum() / (labels >= 0).sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        for name, value in model.named_parameters():
            average[name].lerp_(value.detach(), 1 - KEPT)
        if step % 100 == 99:
            asked = (labels >= 0).sum(1)
            right = ((logits.argmax(-1) == labels) & (labels >= 0)).sum(1) == asked
            of_task = " ".join(f"{t} {right[n :: len(TASKS)].float().mean():.2f}" for n, t in enumerate(TASKS))
            loss = (losses.sum() / asked.sum()).item()
            log.append(f"step {step + 1} {time.monotonic() - started:.0f} s loss {loss:.4f} {of_task}")
            print(log[-1], flush=True)
    model.load_state_dict(average)
    return log


def export(model: LlamaForCausalLM, tokenizer: Any, folder: Path) -> None:
    """As a user would save it, in float16."""
    shutil.rmtree(folder, ignore_errors=True)
    assert model.generation_config is not None
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def evaluate() -> dict[str, Any]:
    """How well the exported model does each task, and what guessing gives."""
    vlm = load_vlm(NAME)
    figures = {}
    with tempfile.TemporaryDirectory() as scratch:
        items = load_items(write_words(scratch, {"test": TEST}, SEED)["test"])
        for name in PROMPTS:
            task = make_task(name)
            examples, _ = task.examples(items)
            (seen,) = measure(vlm, [(task, examples)], {UNEDITED: BASELINE}, seed=0)
            figures[name] = {
                "metric": task.metric_name,
                "items": len(examples),
                "score": seen.level(UNEDITED).as_dict(),
                "guess": task.guess(examples),
            }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("checkpoints"), help="keeps the weights before rounding")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tokenizer = make_tokenizer()
    model = build(tokenizer, options.seed)
    log = train(model, tokenizer, options.steps)
    options.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), options.out / f"{NAME}.pt")
    export(model, tokenizer, BUILT_IN_FOLDER / NAME)
    manifest = {"model": NAME, "figures": evaluate(), "training_log": log}
    (BUILT_IN_FOLDER / f"{NAME}.manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
