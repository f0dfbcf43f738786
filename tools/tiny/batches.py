"""Training batches: some sixteen pictures, and for each some eight prompts of all tasks that share its prefix.

The prefix (template and picture tokens) of a picture is computed once; its keys and values are handed to each of its
prompts, whose positions go on where the prefix ends, so each prompt is computed exactly as if it stood alone.
"""

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from hones.data.pictures import draw_box
from hones.data.shapes.language import Statement, captions, describe, false_statement, holds, perturb, questions
from hones.data.shapes.scene import CHARACTERS, COLOURS, SHAPES, SIZE, Scene, draw, make_scene
from hones.tasks import caption as caption_task
from hones.tasks import ocr, retrieval, vqa

from .architecture import TinyParts

TASKS = ("vqa", "ocr", "caption", "retrieval")
_QUESTION_WEIGHT = {"colour": 3.0, "shape": 1.5, "count": 1.0, "existence": 1.5, "relation": 1.5}
_TASK_WEIGHT = {"vqa": 1.0, "ocr": 1.5, "caption": 1.0, "retrieval": 1.5}


def caption(statement: Statement, rng: random.Random) -> str:
    """One paraphrase; the plain one half of the time."""
    return captions(statement)[rng.choice((0, 0, 0, 0, 1, 2, 3, 4))]


@dataclass
class Prompt:
    """One supervised prompt: its task, text, answer and the part of the text that is true of the picture, if any."""

    task: str
    kind: str
    text: str
    answer: str
    candidate: str | None = None


@dataclass
class Rows:
    """R prompts of similar length, right-padded to T tokens."""

    picture: Tensor  # [R] index of the picture
    ids: Tensor  # [R, T]
    rows: Tensor  # [N] row and
    columns: Tensor  # [N] position of each supervised prediction,
    labels: Tensor  # [N] the token to predict
    weights: Tensor  # [N]
    prompt_of: Tensor  # [N] index into the batch's prompts; the last index + 1 for candidate tokens
    text: Tensor  # [R, T] bool, not padding


@dataclass
class Batch:
    """B pictures and their prompts in buckets of similar length."""

    images: dict[str, Tensor]
    cells: Tensor  # [B, grid*grid, 5] character, index, colour, shape, boxed
    prompts: list[Prompt]
    buckets: list[Rows]


def prompts_of(scene: Scene, boxed: bool, rng: random.Random, simple: float, pairs: int) -> list[Prompt]:
    """The prompts asked about one picture.

    simple: the share of single-object candidates. pairs: how often a picture comes with its description and with a
    description that has one thing wrong; with more than one, fewer questions are asked.
    """
    asked = questions(scene, rng)
    keys = {q: rng.random() ** (1 / _QUESTION_WEIGHT[q[0]]) for q in asked}
    chosen = sorted(asked, key=keys.__getitem__, reverse=True)[: (3 if boxed else 4) - (pairs > 1)]
    prompts = [Prompt("vqa", kind, vqa.PROMPT.format(question=q), a) for kind, q, a in chosen]
    if boxed:
        prompts.append(Prompt("ocr", "ocr", ocr.PROMPT, scene.label.string))
    prompts.append(Prompt("caption", "caption", caption_task.PROMPT, caption(describe(scene, rng), rng)))
    candidates = [_candidate(scene, rng, simple) for _ in range(2)]
    for _ in range(pairs):
        if rng.random() >= simple:
            candidates += [(describe(scene, rng), "true"), (false_statement(scene, rng, hard=True), "hard")]
    for statement, kind in candidates:
        true, text = holds(statement, scene), caption(statement, rng)
        answer = "Yes" if true else "No"
        prompts.append(
            Prompt("retrieval", kind, retrieval.PROMPT.format(candidate=text), answer, text if true else None)
        )
    return prompts


def _candidate(scene: Scene, rng: random.Random, simple: float) -> tuple[Statement, str]:
    if rng.random() < simple:
        thing = rng.choice(scene.things)
        statement = Statement(((thing.colour, thing.shape),))
        return (statement, "simple") if rng.random() < 0.5 else (perturb(statement, rng), "simple")
    draw_ = rng.random()
    if draw_ < 0.45:
        return describe(scene, rng), "true"
    return false_statement(scene, rng, hard=draw_ < 0.85), "hard" if draw_ < 0.85 else "other"


def cell_labels(scene: Scene, boxed: bool, grid: int) -> Tensor:
    """What covers each cell [grid*grid, 5]: character, its index, colour, shape, boxed, each + 1; 0: nothing."""
    side = SIZE / grid
    labels = torch.zeros(grid, grid, 5, dtype=torch.long)
    best = torch.zeros(grid, grid)
    texts = [(scene.label, 2 if boxed else 1)] + ([(scene.distractor, 1)] if scene.distractor else [])
    for text, box in texts:
        for index, (character, left, top, right, bottom) in enumerate(text.glyphs()):
            for r in range(int(top // side), grid):
                for c in range(int(left // side), min(grid, int(right // side) + 1)):
                    overlap = max(0, min(right, (c + 1) * side) - max(left, c * side))
                    overlap *= max(0, min(bottom, (r + 1) * side) - max(top, r * side))
                    if overlap > max(best[r, c].item(), 0.2 * side * side):
                        best[r, c] = overlap
                        labels[r, c, 0] = CHARACTERS.index(character) + 1
                        labels[r, c, 1] = index + 1
                        labels[r, c, 4] = box
    for thing in scene.things:
        for r in range(grid):
            for c in range(grid):
                x, y = (c + 0.5) * side - thing.x, (r + 0.5) * side - thing.y
                if max(abs(x), abs(y)) < thing.radius + side / 4:
                    labels[r, c, 2] = list(COLOURS).index(thing.colour) + 1
                    labels[r, c, 3] = SHAPES.index(thing.shape) + 1
    return labels.reshape(grid * grid, 5)


class Packer:
    """Turns scenes into packed batches for one model."""

    def __init__(self, parts: TinyParts) -> None:
        self.parts = parts
        self.tokenizer = parts.tokenizer
        self.is_qwen = parts.model.config.model_type == "qwen2_5_vl"
        self.image_token = self.tokenizer.convert_tokens_to_ids("<|image_pad|>" if self.is_qwen else "<image>")
        self.eos = self.tokenizer.eos_token_id
        self.pad = self.tokenizer.pad_token_id
        text = self.wrap("X")
        ids = self.tokenizer(text)["input_ids"]
        at = ids.index(self.image_token)
        self.prefix = ids[:at] + [self.image_token] * parts.grid**2
        self.prefix_positions = self._prefix_positions(at)

    def wrap(self, prompt: str) -> str:
        if not self.is_qwen:
            return f"USER: <image>\n{prompt}\nASSISTANT:"
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        messages = [{"role": "user", "content": content}]
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def _prefix_positions(self, at: int) -> Tensor:
        """[3, prefix] (Qwen: time, row, column) or [1, prefix]; the suffix starts at their maximum + 1."""
        if not self.is_qwen:
            return torch.arange(len(self.prefix))[None]
        n = self.parts.grid
        text = torch.arange(at).expand(3, -1)
        rows, columns = torch.arange(n).repeat_interleave(n), torch.arange(n).repeat(n)
        return torch.cat([text, at + torch.stack([torch.zeros(n * n, dtype=torch.long), rows, columns])], dim=1)

    def suffix(self, prompt: Prompt) -> tuple[list[int], list[int]]:
        ids = self.tokenizer(self.wrap(prompt.text))["input_ids"]
        after = ids[ids.index(self.image_token) + 1 :]
        answer = prompt.answer if self.is_qwen else f" {prompt.answer}"
        return after, [*self.tokenizer(answer, add_special_tokens=False)["input_ids"], self.eos]

    def pictures(self, scenes: list[Scene], boxed: list[bool]) -> dict[str, Tensor]:
        drawn = [draw_box(draw(s), s.label.box) if b else draw(s) for s, b in zip(scenes, boxed, strict=True)]
        return dict(self.parts.image_processor(images=drawn, return_tensors="pt"))

    def cells(self, scenes: list[Scene], boxed: list[bool]) -> Tensor:
        return torch.stack([cell_labels(s, b, self.parts.grid) for s, b in zip(scenes, boxed, strict=True)])

    def pack(self, seed: str, size: int, simple: float = 0.15, candidate_weight: float = 0.0, pairs: int = 1) -> Batch:
        """`size` pictures with their prompts; true candidates are themselves supervised at `candidate_weight`."""
        scenes = [make_scene(f"{seed}/{i}") for i in range(size)]
        rng = random.Random(f"pack/{seed}")
        boxed = [rng.random() < 0.6 for _ in scenes]
        owned = [(b, p) for b, scene in enumerate(scenes) for p in prompts_of(scene, boxed[b], rng, simple, pairs)]
        encoded = [(n, b, p, *self.suffix(p)) for n, (b, p) in enumerate(owned)]
        encoded.sort(key=lambda row: len(row[3]) + len(row[4]))
        middle = len(encoded) * 5 // 9
        return Batch(
            images=self.pictures(scenes, boxed),
            cells=self.cells(scenes, boxed),
            prompts=[p for _, p in owned],
            buckets=[self._rows(part, len(owned), candidate_weight) for part in (encoded[:middle], encoded[middle:])],
        )

    def _rows(
        self, encoded: list[tuple[int, int, Prompt, list[int], list[int]]], nobody: int, candidate_weight: float
    ) -> Rows:
        width = max(len(question) + len(answer) - 1 for *_, question, answer in encoded)
        ids = torch.full((len(encoded), width), self.pad)
        text = torch.zeros(len(encoded), width, dtype=torch.bool)
        supervised: list[tuple[int, int, int, float, int]] = []
        for r, (n, _, prompt, question, answer) in enumerate(encoded):
            tokens = question + answer[:-1]
            ids[r, : len(tokens)] = torch.tensor(tokens)
            text[r, : len(tokens)] = True
            weight = _TASK_WEIGHT[prompt.task] / len(answer) ** 0.5
            supervised += [(r, len(question) - 1 + k, label, weight, n) for k, label in enumerate(answer)]
            if prompt.candidate and candidate_weight:
                stated = self.tokenizer(f" {prompt.candidate}", add_special_tokens=False)["input_ids"]
                at = next(i for i in range(len(question)) if question[i : i + len(stated)] == stated)
                weight = candidate_weight / len(stated) ** 0.5
                supervised += [(r, at - 1 + k, token, weight, nobody) for k, token in enumerate(stated)]
        rows, columns, labels, weights, owner = zip(*supervised, strict=True)
        return Rows(
            picture=torch.tensor([b for _, b, *_ in encoded]),
            ids=ids,
            rows=torch.tensor(rows),
            columns=torch.tensor(columns),
            labels=torch.tensor(labels),
            weights=torch.tensor(weights),
            prompt_of=torch.tensor(owner),
            text=text,
        )
