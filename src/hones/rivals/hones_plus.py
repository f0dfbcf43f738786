"""hones+: what a neuron contributes to telling this item's answer from the answers of other items.

1. Knowledge of an item. y_t are the gold answer's tokens, its end token included, T_x of them, teacher forced; pi_t(v)
   is how often gold answers of the discovery items have token v at position t, the answer-free prior:

       V = sum_x w_x sum_t sum_v (1[v = y_t] - pi_t(v)) log p(v | x, y_<t),    w_x = 1 / (N T_x),

   pi_t weighted by w_x too. A model that gives every item the same p at position t has V = 0 there, whatever
   it prefers; a calibrated one has V = mean of KL(p || pi) + KL(pi || p) at the first token. So V counts what the model
   knows about the item, not how well it speaks: a neuron that every answer needs raises log p of the gold answer and
   of all others alike, which changes V by nothing. (At later tokens, what the answer's first tokens tell counts too.)
   Of a task answered by Yes or No, the first prompt and up to four others (No) count one half each, a first prompt
   without others all.

2. Attribution. With a gate g[l,i] on z[l,i], at every position as masking has it,

       score[l,i] = dV / dg[l,i] at g = 1  =  sum_x w_x sum_s z[l,i](s) dV_x / dz[l,i](s):

   how much V falls when the neuron is closed, to first order. One backward pass per prompt.

Why not the released score (measured on planted models, docs/leaderboard.md): it reads one position, while neurons also
work at the picture and at answer tokens; it sees what is written toward the unembedding of the answer, not what later
layers read; and it rewards what every answer of the task needs. Unlike it, this needs no heads. Attribution patching
(`atp`) is the same for log p(y) alone, without the prior. Tried on the variants for choosing and left out, because it
cost more and found no more: integrating the gradient along closing the largest tenth of the neurons, or all of them;
ranking the first 3 % anew by what zeroing each alone, or in random triples, does to the loss (average precision on
planted-llava-1: one gradient .95, .95, .92 on vqa, ocr, caption; zeroing alone .90, .96, .81; triples .90, .95, .82).

Shapes: g, dV/dg, score [L, I].
"""

import warnings
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hones.errors import HonesError, HonesWarning
from hones.log import LOG
from hones.models.vlm import VLM
from hones.models.writing import importance_shape
from hones.rivals.base import Context, Importance, Method
from hones.rivals.beginnings import Beginnings, disproof, first_few, kept_bytes, pieces, worth_a_proof
from hones.rivals.gates import Gated, GateGradients, gates_on
from hones.rivals.reading import ROWS_WITH_GRADIENT
from hones.sweep.shards import named, portable
from hones.tasks.base import Example, Task

NEGATIVES = 4


@dataclass(frozen=True)
class Question:
    """One prompt and its gold answer: token ids, and how much the prompt counts beside the others."""

    example: Example
    prompt: str
    answer: str
    ids: tuple[int, ...]
    weight: float


class HonesPlus(Method, known="hones+"):
    """Contrastive attribution."""

    cut_by_items = True

    def importance(self, context: Context) -> Importance:
        """The score above, float32.

        Raises:
            HonesError: all answers are the same.
        """
        gradients = GateGradients(context, [knowledge_of(context.task, context.examples)], rounds=1)
        (gradient,) = gradients.at(np.ones(importance_shape(context.vlm), dtype=np.float32))
        return gradient.astype(np.float32)


@dataclass(frozen=True)
class KnowledgeOf:
    """Makes `Knowledge` where the model is (a `hones.rivals.gates.Job`)."""

    task: Task
    examples: Sequence[Example]

    @property
    def tasks(self) -> list[Task]:
        return [self.task]

    def __call__(self, vlm: VLM, rows: int) -> "Knowledge":
        return Knowledge(vlm, self.task, self.examples, rows)


def knowledge_of(task: Task, examples: Sequence[Example]) -> KnowledgeOf:
    """The job of a task, for workers elsewhere too."""
    return KnowledgeOf(task, portable(examples))


class Knowledge(Gated):
    """V of a task's examples, and its gradient, `rows` prompts at once, by whole passes unless `hasten` finds better.

    Raises:
        HonesError: there are no examples, or all answers are the same.
    """

    def __init__(self, vlm: VLM, task: Task, examples: Sequence[Example], rows: int | None = None) -> None:
        self.vlm = vlm
        self.rows = rows or ROWS_WITH_GRADIENT
        self.asked = [asked for e in examples for asked in _questions(vlm, task, e, 1 / len(examples))]
        answers = {asked.ids for asked in self.asked}
        if len(answers) < 2:
            raise HonesError(
                f"{task.name}: all {len(self.asked)} answers are the same" if answers else f"{task.name}: no items",
                expected="at least two answers: hones+ asks what tells them apart",
                do="use more items, or --method hones",
            )
        self.count = len(self.asked)
        self.beginnings: Beginnings | None = None
        self.prior = answer_free_prior(self.asked, vlm.anatomy.lm_head.out_features)

    def about(self, prompts: range) -> str:
        return named([asked.example for asked in self.asked[prompts.start : prompts.stop]])

    @property
    def pieces(self) -> list[range]:
        """Prompts about one picture stay together."""
        return pieces(self.asked, range(self.count), self.rows)

    def passes(self, prompts: range) -> list[range]:
        return super().passes(prompts) if self.beginnings is None else self.beginnings.passes(prompts)

    def hasten(self, rounds: int, most: int | None) -> bool:
        """From embeddings that are kept and prefixes that are shared, where that is worth a proof, and is proven."""
        proven = first_few(self.asked, self.rows)
        if not worth_a_proof(self.pieces, rounds, len(proven)):
            return False
        few = copy(self)
        few.asked = [self.asked[n] for n in proven]
        few.count = len(few.asked)
        fast = copy(few)
        fast.beginnings = Beginnings(self.vlm, few.asked, self.rows, 0)
        problem = disproof(self.vlm, few, fast)
        if problem is None:
            self.beginnings = Beginnings(self.vlm, self.asked, self.rows, kept_bytes(self.vlm, rounds, most))
            LOG.info("gradients of %d prompts from shared beginnings, proven on %d of them", self.count, few.count)
            return True
        family = type(self.vlm.model).__name__
        warnings.warn(f"{family}: gradients by whole passes take longer ({problem})", HonesWarning, stacklevel=2)
        return False

    def parts(self, gates: Float[Tensor, "layers neurons"], prompts: range) -> Iterator[Float[Tensor, ""]]:
        for batch in self.passes(prompts):
            part = self.asked[batch.start : batch.stop]
            log_p = self._whole(gates, part) if self.beginnings is None else self.beginnings.log_p(gates, batch)
            yield self._contrast(part, log_p)

    def _whole(
        self, gates: Float[Tensor, "layers neurons"], part: Sequence[Question]
    ) -> Float[Tensor, "tokens vocabulary"]:
        """log p where each answer token is predicted, rows in order: the definition."""
        encoded = self.vlm.encode_with_answers(
            [a.example.open_picture() for a in part], [a.prompt for a in part], [a.answer for a in part]
        )
        assert encoded.answer is not None
        with gates_on(self.vlm, gates):
            keep = int(encoded.answer.sum(1).max()) + 1
            return self.vlm.logits(encoded, keep=keep)[:, :-1][encoded.answer[:, -keep + 1 :]].log_softmax(-1)

    def _contrast(self, part: Sequence[Question], log_p: Float[Tensor, "tokens vocabulary"]) -> Float[Tensor, ""]:
        """sum over the batch's answer tokens, row by row, of w_x sum_v (1[v = y_t] - pi_t(v)) log p(v)."""
        prior = self.prior.to(log_p)
        contrasts = []
        for asked, of_row in zip(part, log_p.split([len(a.ids) for a in part]), strict=True):
            length = len(asked.ids)
            of_answer = of_row[torch.arange(length), torch.tensor(asked.ids)].sum()
            contrasts.append(asked.weight / length * (of_answer - (prior[:length] * of_row).sum()))
        return torch.stack(contrasts).sum().cpu()


def contrasted(task: Task, examples: Sequence[Example]) -> int:
    """How many prompts of the examples are contrasted, each in a forward and a backward pass."""
    return sum(len(example.prompts[: 1 + NEGATIVES]) if task.answers == "yes_no" else 1 for example in examples)


def _questions(vlm: VLM, task: Task, example: Example, share: float) -> list[Question]:
    """The prompts of one example; their weights add up to `share`."""
    if task.answers != "yes_no":
        answer = task.answers_to_learn(example)[0]
        return [Question(example, example.prompts[0], answer, tuple(vlm.gold_ids(example.prompts[0], answer)), share)]
    first, *others = example.prompts[: 1 + NEGATIVES]
    of_first = share / 2 if others else share
    asked = [(first, example.target, of_first), *((prompt, "No", share / 2 / len(others)) for prompt in others)]
    return [Question(example, prompt, a, tuple(vlm.gold_ids(prompt, a)), weight) for prompt, a, weight in asked]


def answer_free_prior(asked: Sequence[Question], vocabulary: int) -> Float[Tensor, "longest vocabulary"]:
    """pi_t(v): the share of the gold answers that reach position t, weighted by w_x, whose token there is v."""
    prior = torch.zeros(max(len(a.ids) for a in asked), vocabulary, dtype=torch.float64)
    for a in asked:
        prior[torch.arange(len(a.ids)), torch.tensor(a.ids)] += a.weight / len(a.ids)
    return (prior / prior.sum(1, keepdim=True)).float()
