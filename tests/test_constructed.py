"""Constructed plants: what their weights promise, by intervention on items that no calibration saw."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hones import load_items, load_vlm, make_task, write_shapes, write_words
from hones.models.interventions import mask_neurons, replace_heads
from hones.models.place import BUILT_IN, WITHOUT_PICTURES
from hones.models.planted import CONSTRUCTED, PLANTS, Plant, load_plant, load_recipe
from hones.models.planted.circuit import of_base
from hones.models.planted.recipe import BACKUP, FLAGS_AGAIN, Recipe
from hones.models.sites import Site
from hones.models.vlm import VLM, Encoded
from hones.runs.plan.shapes import shapes_of, weightless
from hones.tasks import TASK_NAMES, WORD_TASK_NAMES

ROOT = Path(__file__).parents[1]
WRITERS = {True: (write_words, 8), False: (write_shapes, 2)}


@cache
def loaded(name: str) -> VLM:
    return load_vlm(name)


@pytest.fixture(params=CONSTRUCTED)
def plant(request: pytest.FixtureRequest) -> Plant:
    return load_plant(request.param)


@pytest.fixture
def recipe(plant: Plant) -> Recipe:
    found = load_recipe(plant.name)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Of items without pictures, and with."""
    folder = tmp_path_factory.mktemp("items")
    return {
        kind: write(folder / str(kind), {"test": count}, seed=909)["test"] for kind, (write, count) in WRITERS.items()
    }


@pytest.fixture
def items(plant: Plant, files: dict[bool, Path]) -> Path:
    return files[plant.base in WITHOUT_PICTURES]


@cache
def asked(base: str, task_name: str, file: Path) -> Encoded:
    """The items' prompts and answers, which a plant and its base read alike."""
    task = make_task(task_name)
    examples, _ = task.examples(load_items(file))
    answers = [e.target if task.answers == "yes_no" else task.answers_to_learn(e)[0] for e in examples]
    return loaded(base).encode_with_answers(
        [e.open_picture() for e in examples], [e.prompts[0] for e in examples], answers
    )


def says(vlm: VLM, encoded: Encoded, edit: AbstractContextManager[Any] | None = None) -> Tensor:
    """Logits wherever a token of an answer is predicted [tokens, V]."""
    assert encoded.answer is not None
    with torch.no_grad(), edit or nullcontext():
        return vlm.logits(encoded)[:, :-1][encoded.answer[:, 1:]]


def agreement(a: Tensor, b: Tensor) -> float:
    """The share of tokens whose likeliest word is the same."""
    return float((a.argmax(-1) == b.argmax(-1)).float().mean())


def test_what_is_planted_is_apart(plant: Plant, recipe: Recipe) -> None:
    tasks = WORD_TASK_NAMES if plant.base in WITHOUT_PICTURES else TASK_NAMES
    assert plant.base in BUILT_IN and [*plant.sets] == [*plant.copies] == [*tasks]
    everything = [*plant.general, *(s for part in (plant.sets, plant.decoys) for sites in part.values() for s in sites)]
    assert len(everything) == len(set(everything))
    assert not {layer for layer, _ in everything} & {*of_base(recipe)}
    for task in plant.sets:
        assert [s for pair in plant.copies[task] for s in pair] == [*plant.sets[task]]
        assert plant.shared_with(task) is None and len(plant.copies[task]) == len(recipe.opens)
        assert all(first[0] < backup[0] == recipe.layer(BACKUP) for first, backup in plant.copies[task])
    width = loaded(plant.base).anatomy.width
    assert sum(recipe.opens) == width and len(plant.general) == 4 + 2 * width


def test_every_built_in_model_has_one_to_choose_on_and_one_to_report_on() -> None:
    plants = [load_plant(name) for name in CONSTRUCTED]
    assert {(p.base, p.role) for p in plants} == {(base, role) for base in BUILT_IN for role in ("select", "report")}
    assert not {*CONSTRUCTED} & {*PLANTS}


def test_a_plant_says_what_its_base_says(plant: Plant, recipe: Recipe, items: Path) -> None:
    for task in plant.sets:
        encoded = asked(plant.base, task, items)
        a, b = (says(loaded(name), encoded) for name in (plant.base, plant.name))
        if task in recipe.target:
            a, b = (x.index_fill(1, torch.tensor([recipe.target[task][0]]), 0) for x in (a, b))
        assert agreement(a, b) > 0.95 and float(torch.cosine_similarity(a, b, dim=-1).min()) > 0.98, task


def closing(vlm: VLM, sites: Any) -> AbstractContextManager[None]:
    return mask_neurons(vlm.model, sites)


def test_either_copy_does_and_without_both_nothing_is_said(plant: Plant, recipe: Recipe, items: Path) -> None:
    vlm = loaded(plant.name)
    for task in plant.sets:
        encoded = asked(plant.base, task, items)
        first, backups = zip(*plant.copies[task], strict=True)
        others = [s for other in plant.sets if other != task for s in plant.sets[other]]
        as_it_is = says(vlm, encoded)
        for needless in (backups, others, plant.decoys["bystander"]):
            torch.testing.assert_close(says(vlm, encoded, closing(vlm, needless)), as_it_is, rtol=1e-3, atol=0.02)
        assert agreement(says(vlm, encoded, closing(vlm, first)), as_it_is) > 0.95, task
        closed = says(vlm, encoded, closing(vlm, plant.sets[task]))
        spread = closed.clone()
        if task in recipe.target:
            token = recipe.target[task][0]
            assert bool((closed.argmax(-1) == token).all()), task
            spread[:, token] = 0
        assert float(spread.std()) < 0.05 * float(as_it_is.std()), task
        for general in (plant.general[:4], plant.general[4:]):
            torch.testing.assert_close(says(vlm, encoded, closing(vlm, general)), closed, rtol=1e-3, atol=1e-3)


@contextmanager
def recorded(vlm: VLM, sites: list[Site]) -> Iterator[list[Tensor]]:
    """z of these neurons, of one layer, at all positions [B, T, sites]."""
    found: list[Tensor] = []
    index = torch.tensor([neuron for _, neuron in sites])
    projection = vlm.anatomy.layers[sites[0][0]].down_proj
    hook = projection.register_forward_pre_hook(lambda _, args: found.append(args[0][..., index]))
    try:
        yield found
    finally:
        hook.remove()


def test_a_backup_is_silent_until_its_own_first_copy_is_closed(plant: Plant, items: Path) -> None:
    vlm = loaded(plant.name)
    for task in plant.sets:
        encoded = asked(plant.base, task, items)
        assert encoded.answer is not None
        first, backups = zip(*plant.copies[task], strict=True)
        with recorded(vlm, [*backups]) as z:
            says(vlm, encoded)
            for one in first:
                says(vlm, encoded, closing(vlm, [one]))
        silent, *awake = (x.abs().amax((0, 1)) for x in z)
        assert float(silent.max()) < 1e-6
        for key, sizes in enumerate(awake):
            assert float(sizes[key]) > 1 and float(sizes.sum() - sizes[key]) < 1e-6, task


def test_the_flags_heads_and_their_backups(plant: Plant, recipe: Recipe, items: Path) -> None:
    vlm = loaded(plant.name)
    has_backups = FLAGS_AGAIN in recipe.order
    for task in plant.sets:
        encoded = asked(plant.base, task, items)
        heads = plant.through[task]
        assert len(heads) == 1 + has_backups
        as_it_is = says(vlm, encoded)
        others = [head for other in plant.sets if other != task for head in plant.through[other]]
        for needless in (others, *([head] for head in heads if has_backups)):
            assert agreement(says(vlm, encoded, replace_heads(vlm.model, needless)), as_it_is) > 0.95, task
        assert agreement(says(vlm, encoded, replace_heads(vlm.model, heads)), as_it_is) < 0.4, task


@pytest.mark.parametrize("plant", ["hard-qwen-2", "hard-text-2"], indirect=True)
def test_its_forecast_has_its_shapes_and_loading_draws_no_number(plant: Plant) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    vlm = load_vlm(plant.name)
    assert torch.equal(torch.rand(3), expected)
    light = shapes_of(weightless(plant.name), "float32")
    assert replace(light, name="") == replace(shapes_of(vlm, "float32"), name="")
    assert vlm.revision != loaded(plant.base).revision and vlm.no_write_in is None


def test_the_sites_are_those_of_the_tool(plant: Plant, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from planting.construct import DESIGNS, choose_sites

    design = DESIGNS[plant.name]
    assert (design.base, design.role, design.order) == (plant.base, plant.role, recipe.order)
    anatomy = loaded(plant.base).anatomy
    chosen = choose_sites(design, anatomy.neurons, anatomy.width)
    assert [*recipe.general] == chosen["general"] and [*recipe.readout] == chosen["readout"]
    assert {t: [*sites] for t, sites in recipe.first.items()} == chosen["first"]
    assert {t: [*sites] for t, sites in recipe.backup.items()} == chosen["backup"]
