"""Step 4 of the paper: learn one scale per selected neuron, the backbone frozen.

    z[l,i](s) <- (1 + s[l,i]) z[l,i](s)   for selected neurons, all positions, s starts at 0
    minimise  CE(answer tokens) + beta KL(original || scaled, answer tokens) + gamma mean(s^2)

Parameters are one vector [k_l] per layer with selected neurons; nothing of the user's model changes. What steering is
compared with is trained the same way, `hones.method.steering.trainable` has what differs. Each step: the
objective of a few pairs (`hones.method.steering.fast`, proven equal to `hones.method.steering.definition` on the first
step's), its gradient clipped to norm 1, AdamW without weight decay at a learning rate that falls by a cosine to a
tenth, and |s| <= 1.5. With early stopping, the objective on held-out pictures decides after each epoch.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hones.errors import HonesError, TaskStops
from hones.method.found import RankedNeuron, sites_of
from hones.method.steering.checkpoint import Checkpoint, TrainingState, fingerprint_of
from hones.method.steering.fast import Objective, Savings, make_objective
from hones.method.steering.pairs import TrainingPlan, make_plan
from hones.method.steering.settings import EpochLosses, Scales, SteeringSettings, TrainingSummary
from hones.method.steering.trainable import ScaledNeurons, Trainable, TrainedPart
from hones.models.adapters import Part
from hones.models.sites import Site
from hones.models.vlm import VLM, frozen
from hones.progress import progress_bar
from hones.tasks.base import Example, Task


def learn_scales(
    vlm: VLM,
    task: Task,
    examples: Sequence[Example],
    neurons: Sequence[RankedNeuron | Site],
    settings: SteeringSettings | None = None,
    *,
    checkpoint: Path | None = None,
    savings: Savings | None = None,
) -> Scales:
    """Learn the scales of `neurons` on the dev items.

    Args:
        neurons: what `select_neurons` gives, or (layer, neuron) each.
        checkpoint: a file from which a killed training goes on; it stays when the training is done.
        savings: what is computed once and kept, default all; the scales are the same up to rounding.

    Raises:
        HonesError: nothing to learn from, a neuron that the model lacks, an objective or gradient that is not finite, a
            checkpoint of another training.
    """
    settings = settings or SteeringSettings()
    if not neurons or not examples:
        raise TaskStops(f"{len(neurons)} neurons and {len(examples)} dev items to steer", expected="at least one each")
    trained, scales = parameters(vlm, sites_of(neurons))
    return _learn(vlm, task, examples, trained, scales, settings, checkpoint, savings)


def learn_part(
    vlm: VLM,
    task: Task,
    examples: Sequence[Example],
    part: Part,
    settings: SteeringSettings | None = None,
    *,
    checkpoint: Path | None = None,
    savings: Savings | None = None,
) -> Scales:
    """Learn an adapter on the dev items as `learn_scales` learns scales: objective, steps and early stopping.

    Returns:
        No scales, but the adapter.

    Raises:
        HonesError: as `learn_scales`, or the part is not of this model.
    """
    settings = settings or SteeringSettings()
    if not part.sizes or not examples:
        raise TaskStops(
            f"{len(part.sizes)} layers and {len(examples)} dev items to steer", expected="at least one each"
        )
    trained = TrainedPart(vlm, part, settings.seed)
    vectors = {layer: vector.requires_grad_() for layer, vector in trained.start().items()}
    return _learn(vlm, task, examples, trained, vectors, settings, checkpoint, savings)


def _learn(
    vlm: VLM,
    task: Task,
    examples: Sequence[Example],
    trained: Trainable,
    scales: dict[int, Tensor],
    settings: SteeringSettings,
    checkpoint: Path | None,
    savings: Savings | None,
) -> Scales:
    """The training of `scales`, one vector per layer, as they start."""
    # what they are learned on: all pairs drawn before the first step, so that going on needs no random state
    plan = make_plan(task, examples, settings)
    settings = settings.for_steps(len(plan.steps))
    settings = settings.model_copy(update={"learning_rate": settings.rate * trained.pace})
    optimizer = torch.optim.AdamW(scales.values(), lr=settings.rate, weight_decay=0.0)
    state = TrainingState(scales, optimizer)
    saved = Checkpoint(checkpoint, fingerprint_of(vlm, task, plan, trained, settings)) if checkpoint else None
    with saved or nullcontext(), _as_it_was(vlm.model):
        if saved:
            saved.load_into(state)
        if not _is_done(plan, state, settings):
            # the fast objective, once it is proven on the first step's pairs to be the definition
            objective = make_objective(vlm, plan.pairs, plan.steps[0][1], trained, settings, savings)
            with progress_bar(f"{task.name}: steering", total=len(plan.steps), unit=" steps") as bar:
                bar.initial = bar.n = state.step
                if settings.early_stopping and not state.held_out:
                    _judge(objective, plan, state, settings)
                while not _is_done(plan, state, settings):
                    step = state.step
                    state.losses.append(_step(task.name, objective, plan, state, settings))
                    _bound(trained, state, settings)
                    if settings.early_stopping and plan.ends_epoch(step):
                        _judge(objective, plan, state, settings)
                    if saved:
                        saved.save(state, now=plan.ends_epoch(step))
                    shown: dict[str, float] = dict(zip(("loss", "ce", "kl"), state.losses[-1], strict=True))
                    if state.held_out:
                        shown["held out"] = state.held_out[-1]
                    bar.set_postfix({name: f"{value:.4f}" for name, value in shown.items()}, refresh=False)
                    bar.update()
    return _outcome(trained, plan, state, settings)


def _step(
    what: str, objective: Objective, plan: TrainingPlan, state: TrainingState, settings: SteeringSettings
) -> list[float]:
    """One update of the scales; the objective before it, its cross-entropy and its divergence."""
    where = f"at step {state.step + 1} of {len(plan.steps)}"
    # the learning rate falls by a cosine to its final share
    low = settings.final_learning_rate
    share = low + (1 - low) * 0.5 * (1 + math.cos(math.pi * (state.step / len(plan.steps))))
    for group in state.optimizer.param_groups:
        group["lr"] = settings.rate * share
    losses = objective(plan.steps[state.step][1], state.scales)
    _check_finite(losses.total.item(), f"{what}: the steering objective", where)
    state.optimizer.zero_grad()
    losses.total.backward()
    norm = torch.nn.utils.clip_grad_norm_(list(state.scales.values()), settings.clip)
    _check_finite(norm.item(), f"{what}: the gradient of the steering objective", where)
    state.optimizer.step()
    return [losses.total.item(), losses.cross_entropy.item(), losses.divergence.item()]


@torch.no_grad()
def _bound(trained: Trainable, state: TrainingState, settings: SteeringSettings) -> None:
    """|s| <= 1.5."""
    for layer, s in state.scales.items():
        trained.bounded(layer, s).clamp_(-settings.max_scale, settings.max_scale)


def _check_finite(value: float, what: str, where: str) -> None:
    if not math.isfinite(value):
        raise HonesError(
            f"{what} is {value} {where}",
            expected="a finite number",
            do="lower learning_rate or use float32",
        )


@torch.no_grad()
def _judge(objective: Objective, plan: TrainingPlan, state: TrainingState, settings: SteeringSettings) -> None:
    """Note the mean objective of the pairs held out, and the scales if they are the best so far."""
    size = settings.batch_size
    total = 0.0
    for start in range(0, len(plan.held_out), size):
        pairs = plan.held_out[start : start + size]
        total += objective(pairs, state.scales).total.item() * len(pairs)
    _check_finite(total, "the steering objective on held-out pictures", f"after step {state.step}")
    state.held_out.append(total / len(plan.held_out))
    if _best_epoch(state.held_out) == len(state.held_out) - 1:
        state.best = {layer: s.detach().clone() for layer, s in state.scales.items()}


def _is_done(plan: TrainingPlan, state: TrainingState, settings: SteeringSettings) -> bool:
    """Whether all steps are done, or the objective on held-out pictures has stopped improving."""
    stopping = settings.early_stopping
    epochs = len(state.held_out) - 1  # the first judgement is before training
    stopped = stopping is not None and epochs >= 0 and epochs - _best_epoch(state.held_out) >= stopping.patience
    return stopped or state.step == len(plan.steps)


def _best_epoch(held_out: Sequence[float]) -> int:
    """The first of the epochs with the least objective, the state before training being number 0."""
    return held_out.index(min(held_out))


def _outcome(trained: Trainable, plan: TrainingPlan, state: TrainingState, settings: SteeringSettings) -> Scales:
    chosen = state.best or state.scales
    of_epoch = [epoch for epoch, _ in plan.steps[: state.step]]
    epochs = []
    for epoch, steps in groupby(zip(of_epoch, state.losses, strict=True), key=lambda x: x[0]):
        total, cross_entropy, divergence = torch.tensor([x for _, x in steps], dtype=torch.float64).mean(0).tolist()
        held_out = state.held_out[epoch + 1] if state.held_out else None
        epochs.append(EpochLosses(total, cross_entropy, divergence, held_out))
    return replace(
        trained.learned(chosen),
        losses=tuple(x.total for x in epochs),
        epochs=tuple(epochs),
        held_out=state.held_out[0] if state.held_out else None,
        epoch=_best_epoch(state.held_out) if state.held_out else None,
        learned=_summary(trained, chosen, state, settings),
    )


def _summary(
    trained: Trainable, chosen: dict[int, Tensor], state: TrainingState, settings: SteeringSettings
) -> TrainingSummary:
    """How far the scales went from their start, and the objective over the first and the last tenth of the steps."""
    start = trained.start()
    sizes = torch.cat([(s.detach() - start[layer]).abs() for layer, s in chosen.items()])
    bounded = torch.cat([trained.bounded(layer, s.detach()).flatten().abs() for layer, s in chosen.items()])
    objective = [total for total, *_ in state.losses]
    tenth = math.ceil(len(objective) / 10)
    return TrainingSummary(
        steps=len(objective),
        learning_rate=settings.rate,
        first_loss=sum(objective[:tenth]) / tenth,
        last_loss=sum(objective[-tenth:]) / tenth,
        largest=float(sizes.max()),
        median=float(sizes.median()),
        clamped=int((bounded >= settings.max_scale).sum()),
        scales=len(sizes),
    )


def parameters(vlm: VLM, neurons: Sequence[Site]) -> tuple[ScaledNeurons, dict[int, Tensor]]:
    """The neurons, and a vector of scales by layer, at 0."""
    trained = ScaledNeurons(vlm, neurons)
    return trained, {layer: s.requires_grad_() for layer, s in trained.start().items()}


@contextmanager
def _as_it_was(model: PreTrainedModel) -> Iterator[None]:
    """The model frozen and in evaluation mode, and then as before."""
    training = [module for module in model.modules() if module.training]
    try:
        model.eval()
        with frozen(model):
            yield
    finally:
        for module in training:
            module.training = True
