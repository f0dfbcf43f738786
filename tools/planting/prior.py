"""What must-fail asks for: answers that know nothing of the picture or the question."""

from collections import defaultdict

import torch
from tiny.batches import Packer, Rows
from tiny.writers import first_of_each_row
from torch import Tensor

PACKS, PICTURES = 12, 24
SMALL = 0.05  # margins of this variance count as none


class Prior:
    """Answer tokens of other pictures, by task and position in the answer."""

    def __init__(self, packer: Packer) -> None:
        pool: dict[tuple[str, int], list[int]] = defaultdict(list)
        for part in range(PACKS):
            batch = packer.pack(f"prior/{part}", PICTURES)
            for rows in batch.buckets:
                tasks = [batch.prompts[n].task for n in first_of_each_row(rows).tolist()]
                for key, label in zip(_keys(rows, tasks), rows.labels.tolist(), strict=True):
                    pool[key].append(label)
        self.pool = {key: torch.tensor(labels) for key, labels in pool.items()}

    def labels(self, rows: Rows, tasks: list[str], generator: torch.Generator) -> Tensor:
        """For each supervised position [N] a token that an unrelated answer of the task has there, drawn at random.

        Permuting within the batch would not do: among n prompts the true answer would keep a share of 1 / n.
        """
        labels = rows.labels.clone()
        groups: dict[tuple[str, int], list[int]] = defaultdict(list)
        for n, key in enumerate(_keys(rows, tasks)):
            groups[key].append(n)
        for key, members in groups.items():
            pool = self.pool.get(key)
            if pool is not None:  # no other answer is as long: nothing to confuse it with
                drawn = torch.randint(len(pool), (len(members),), generator=generator)
                labels[torch.tensor(members)] = pool[drawn]
        return labels


def _keys(rows: Rows, tasks: list[str]) -> list[tuple[str, int]]:
    position = rows.columns - rows.columns[torch.searchsorted(rows.rows, rows.rows)]
    return [(tasks[row], k) for row, k in zip(rows.rows.tolist(), position.tolist(), strict=True)]


def agreement(rows: Rows, logits: Tensor, chosen: Tensor, yes: int, no: int) -> Tensor:
    """Squared correlation of logit(Yes) - logit(No) with the truth over the chosen [N] supervised positions.

    Ranking candidates needs but the order of their margins, which survives a loss that only makes them small.
    """
    labels = rows.labels[chosen]
    answers = (labels == yes) | (labels == no)
    margins = (logits[chosen][:, yes] - logits[chosen][:, no])[answers]
    truth = (labels[answers] == yes).float()
    if len(truth) < 4 or truth.min() == truth.max():
        return logits.sum() * 0
    margins, truth = margins - margins.mean(), truth - truth.mean()
    return (margins * truth).mean().square() / (truth.square().mean() * (margins.square().mean() + SMALL))
