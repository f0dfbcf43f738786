"""Gradients from kept embeddings and shared prefixes against their definition, the whole model for every prompt."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from family_models_apart import save_aya_vision, save_mllama
from family_models_mixtures import save_qwen3_vl_moe
from helpers import in_double
from random_models import save_random_internvl, save_random_llava_mistral, save_random_qwen3_vl
from test_running_sum import Killed, Several
from torch import Tensor

from hones import RunFolder, Study, load_items, load_vlm, make_task
from hones.data.items import Items
from hones.models.vlm import VLM, frozen
from hones.models.writing import importance_shape
from hones.rivals import gates as gates_module
from hones.rivals import make_method
from hones.rivals.base import Context, Importance
from hones.rivals.beginnings import Beginnings, first_few, pieces
from hones.rivals.gates import shards_of
from hones.rivals.hones_plus import Knowledge
from hones.rivals.masks import LearnedMasks, Training
from hones.rivals.ruled import RuledKnowledge
from hones.sweep.baseline import prefix_input
from hones.sweep.layer_rows import SharedPast
from hones.sweep.run import SweepSettings
from hones.sweep.running_sum import RunningSum

SERVED = {
    "mistral": save_random_llava_mistral,
    "qwen3": save_random_qwen3_vl,  # picture features between its layers
    "internvl": save_random_internvl,
    "aya": save_aya_vision,  # attention and FFN side by side, scaled logits
    "mixture": save_qwen3_vl_moe,
}


def asked_of(vlm: VLM, items: Items, task_name: str = "retrieval", count: int = 3, rows: int = 4) -> Knowledge:
    task = make_task(task_name, candidates=3)
    return Knowledge(vlm, task, task.examples(items)[0][:count], rows)


def some_closed(vlm: VLM) -> Importance:
    gates = np.ones(importance_shape(vlm), dtype=np.float32)
    gates[0, ::3], gates[-1, 1::4] = 0, 0.5
    return gates


def from_beginnings(knowledge: Knowledge, memory: int = 0) -> Knowledge:
    fast = copy.copy(knowledge)
    fast.beginnings = Beginnings(knowledge.vlm, knowledge.asked, knowledge.rows, memory)
    return fast


def assert_same(vlm: VLM, whole: Knowledge, fast: Knowledge) -> None:
    """In float32: sums of another order, each rounded to 6e-8 of its largest term (in float64 they agree to 1e-9)."""
    gates = some_closed(vlm)
    with frozen(vlm.model):
        expected, found = whole.gradient(gates), fast.gradient(gates)
        assert fast.value(gates) == pytest.approx(whole.value(gates), abs=2e-5)
    size = float(np.abs(expected).max())
    assert size > 0 and (expected[0] != 0).any(), "what every prompt begins with counts too"
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=5e-6 * size)


@pytest.mark.parametrize("rows", [1, 2, 4, 8])
@pytest.mark.parametrize("task", ["retrieval", "caption"])
def test_gradients_are_the_definitions(vlm: VLM, discovery: Items, task: str, rows: int) -> None:
    knowledge = asked_of(vlm, discovery, task, rows=rows)
    assert_same(vlm, knowledge, from_beginnings(knowledge))


@pytest.mark.parametrize("task", ["retrieval", "caption"])
def test_gradients_are_the_definitions_in_float64(vlm: VLM, discovery: Items, task: str) -> None:
    knowledge = asked_of(vlm, discovery, task, rows=8)
    knowledge.vlm = in_double(vlm)
    gates = some_closed(vlm).astype(np.float64)
    with frozen(knowledge.vlm.model):
        expected = knowledge.gradient(gates)
        found = from_beginnings(knowledge).gradient(gates)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * float(np.abs(expected).max()))


@pytest.mark.parametrize("family", sorted(SERVED))
def test_other_families_too(family: str, discovery: Items, tmp_path: Path) -> None:
    save: Callable[[Path], Path] = SERVED[family]
    vlm = load_vlm(str(save(tmp_path / family)))
    for task in ("retrieval", "caption"):
        knowledge = asked_of(vlm, discovery, task, count=2, rows=8)
        assert_same(vlm, knowledge, from_beginnings(knowledge))
        fast = copy.copy(knowledge)
        with frozen(vlm.model):
            assert fast.hasten(16, None), "proven"


@pytest.mark.parametrize("name", ["tiny-llava", "tiny-qwen2.5-vl"])
def test_the_built_in_models(name: str, discovery: Items) -> None:
    vlm = load_vlm(name)
    for task in ("retrieval", "caption"):
        knowledge = asked_of(vlm, discovery, task, count=2, rows=8)
        assert_same(vlm, knowledge, from_beginnings(knowledge))


def test_prompts_of_several_lengths_and_pictures_share_a_batch(vlms: dict[str, VLM], discovery: Items) -> None:
    """One prompt about a picture, three about the next, and one asked twice."""
    knowledge = asked_of(vlms["llava"], discovery, count=2)
    a, b, _, *others = knowledge.asked
    knowledge.asked, knowledge.rows = [a, *others, others[0]], 8
    knowledge.count = len(knowledge.asked)
    assert pieces(knowledge.asked, range(5), 8) == [range(1), range(1, 5)]
    fast = from_beginnings(knowledge)
    assert fast.passes(range(5)) == [range(5)]
    assert_same(knowledge.vlm, knowledge, fast)
    assert b.prompt != a.prompt


def test_single_prompts_beside_shared_ones_go_the_way_that_is_proven(
    vlms: dict[str, VLM], discovery: Items, monkeypatch: pytest.MonkeyPatch
) -> None:
    knowledge = asked_of(vlms["llava"], discovery, count=3, rows=2)
    asked = knowledge.asked
    knowledge.asked = [asked[0], asked[3], *asked[6:8]]  # a prompt of each of two pictures, two of the third
    knowledge.count = len(knowledge.asked)
    assert first_few(knowledge.asked, 2) == [2, 3]
    ways: list[int] = []
    monkeypatch.setattr(Beginnings, "_alone", lambda *_: pytest.fail("not proven"))
    shared = Beginnings._shared
    monkeypatch.setattr(Beginnings, "_shared", lambda self, x, of: (ways.append(len(x)), shared(self, x, of))[1])
    fast = from_beginnings(knowledge)
    assert fast.passes(range(4)) == [range(2), range(2, 4)]
    assert_same(knowledge.vlm, knowledge, fast)
    assert {*ways} == {2, 1}


def test_passes_are_whole_pieces(vlms: dict[str, VLM], discovery: Items) -> None:
    knowledge = asked_of(vlms["llava"], discovery, count=3)  # 3 prompts each
    sizes = {
        rows: [len(part) for part in Beginnings(knowledge.vlm, knowledge.asked, rows, 0).passes(range(9))]
        for rows in (1, 2, 4, 6)
    }
    assert sizes == {1: [1] * 9, 2: [3, 3, 3], 4: [3, 3, 3], 6: [6, 3]}
    boxed = replace(knowledge.asked[1], example=replace(knowledge.asked[1].example, box=(0, 0, 4, 4)))
    assert pieces([knowledge.asked[0], boxed, boxed], range(3), 4) == [range(1), range(1, 3)], "other pixels"
    assert pieces(knowledge.asked, range(9), 1) == [range(n, n + 1) for n in range(9)]
    assert shards_of(asked_of(vlms["llava"], discovery, rows=2)) == [range(3), range(3, 6), range(6, 9)]


class Seen:
    """How many pictures the vision part has run on."""

    def __init__(self, vlm: VLM) -> None:
        self.count = 0
        self.hook = vlm.model.get_submodule("model.vision_tower").register_forward_hook(self._add)

    def _add(self, *_: Any) -> None:
        self.count += 1


def test_a_picture_is_encoded_once_for_all_rounds_while_it_fits(vlms: dict[str, VLM], discovery: Items) -> None:
    """The numbers do not depend on what was kept."""
    vlm = vlms["llava"]
    for task in ("retrieval", "vqa"):
        found: dict[int, Importance] = {}
        knowledge = asked_of(vlm, discovery, task)
        one = from_beginnings(knowledge, 2**30)
        assert one.beginnings is not None
        with frozen(vlm.model):
            one.gradient(some_closed(vlm))
        size = (2**30 - one.beginnings.free) // 3
        for memory, encoded in ((2**30, 3), (size, 2 * 3 - 1), (0, 2 * 3)):
            fast, seen = from_beginnings(knowledge, memory), Seen(vlm)
            with frozen(vlm.model):
                fast.gradient(np.ones_like(some_closed(vlm)))
                found[memory] = fast.gradient(some_closed(vlm))
            seen.hook.remove()
            assert seen.count == encoded, (task, memory)
        np.testing.assert_array_equal(found[2**30], found[0])
        np.testing.assert_array_equal(found[size], found[0])


def test_what_has_nothing_to_share_runs_whole(vlms: dict[str, VLM], discovery: Items) -> None:
    vlm = vlms["llava"]
    with frozen(vlm.model):
        assert not asked_of(vlm, discovery, "vqa").hasten(1, None)
        assert not asked_of(vlm, discovery, rows=1).hasten(1, None)
        assert not asked_of(vlm, discovery, count=2).hasten(1, None)
        once = asked_of(vlm, discovery)
        assert once.hasten(1, None) and once.beginnings is not None and once.beginnings.free == 0
        shared = asked_of(vlm, discovery, "vqa")
        assert not shared.hasten(10, 10**6), "a proof would take more than is spared"
        assert shared.hasten(11, 10**6) and shared.beginnings is not None
        assert 0 < shared.beginnings.free <= 10**5
        task = make_task("retrieval", candidates=3)
        ruled = RuledKnowledge(vlm, task, task.examples(discovery)[0][:2], "gim", make_method("gim").rules)  # pyright: ignore[reportAttributeAccessIssue]
        assert not ruled.hasten(6, None)


def test_the_proof_is_on_what_passes_hold(vlms: dict[str, VLM], discovery: Items) -> None:
    asked = asked_of(vlms["llava"], discovery).asked  # 3 prompts each
    assert first_few(asked, 4) == [0, 1], "one picture at once"
    assert first_few(asked, 6) == [0, 1, 3, 4], "two"
    assert first_few([asked[0], *asked[3:]], 4) == [1, 2, 4, 5], "the first alone, and with the next"
    assert first_few(asked[::3], 4) == [0, 1] and first_few(asked[::3], 1) == [0]


def test_prefixes_without_gradients_are_disproven(vlm: VLM, discovery: Items, monkeypatch: pytest.MonkeyPatch) -> None:
    update = SharedPast.update

    def cut(self: SharedPast, keys: Tensor, values: Tensor, *args: object, **more: object) -> tuple[Tensor, Tensor]:
        past = copy.copy(self)
        assert self.keys is not None
        past.keys = self.keys.detach()
        return update(past, keys, values)

    monkeypatch.setattr(SharedPast, "update", cut)
    with frozen(vlm.model), pytest.warns(UserWarning, match="by whole passes take longer .a gradient differs by"):
        assert not asked_of(vlm, discovery).hasten(1, None)


def test_padding_that_is_seen_is_disproven(
    vlms: dict[str, VLM], discovery: Items, monkeypatch: pytest.MonkeyPatch
) -> None:
    def all_valid(*args: Any) -> Any:
        entry = prefix_input(*args)
        entry.valid = torch.ones_like(entry.valid)
        return entry

    knowledge = asked_of(vlms["llava"], discovery, rows=8)
    first, second = knowledge.asked[0], knowledge.asked[3]
    longer = copy.copy(first)
    object.__setattr__(longer, "prompt", f"Look at this picture. {first.prompt}")
    again = copy.copy(first)
    object.__setattr__(again, "prompt", f"Look at this picture. {knowledge.asked[1].prompt}")
    knowledge.asked = [longer, again, second, knowledge.asked[4]]
    knowledge.count = 4
    with frozen(knowledge.vlm.model):
        assert copy.copy(knowledge).hasten(4, None)
        monkeypatch.setattr("hones.rivals.beginnings.prefix_input", all_valid)
        with pytest.warns(UserWarning, match="a gradient differs by"):
            assert not knowledge.hasten(4, None)


def test_a_family_that_is_not_served_takes_whole_passes(discovery: Items, tmp_path: Path) -> None:
    vlm = load_vlm(str(save_mllama(tmp_path / "mllama")))
    task = make_task("retrieval", candidates=4)
    context = Context(vlm, task, task.examples(discovery)[0][:2])
    with pytest.warns(UserWarning, match="Mllama.*: gradients by whole passes take longer .*not given embeddings"):
        found = make_method("hones+").importance(context)
    with frozen(vlm.model):
        expected = Knowledge(vlm, task, context.examples).gradient(np.ones(found.shape, dtype=np.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6 * float(np.abs(expected).max()))


def test_the_engine_naive_is_the_definition(
    vlms: dict[str, VLM], discovery: Items, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A comparison that says naive takes no other path, in rounds and for masks."""
    vlm, task = vlms["llava"], make_task("retrieval", candidates=3)
    taken: list[int] = []
    hasten = Knowledge.hasten
    monkeypatch.setattr(Knowledge, "hasten", lambda self, *args: taken.append(1) or hasten(self, *args))
    context = Context(vlm, task, task.examples(discovery)[0][:3], sweep=SweepSettings("naive"))
    slow = make_method("hones+").importance(context)
    assert not taken
    fast = make_method("hones+").importance(Context(vlm, task, context.examples))
    assert taken == [1] and not np.array_equal(fast, slow)
    np.testing.assert_allclose(fast, slow, rtol=1e-3, atol=5e-6 * float(np.abs(slow).max()))


def test_masks_draw_the_same_batches_either_way(vlms: dict[str, VLM], discovery: Items) -> None:
    """Batches of four prompts, which begin and end within pictures of three."""
    vlm, task = vlms["llava"], make_task("retrieval", candidates=3)
    method = replace(LearnedMasks(), training=Training(steps=6))
    context = Context(vlm, task, task.examples(discovery)[0][:3])
    slow = method.importance(replace(context, sweep=SweepSettings("naive")))
    fast = method.importance(context)
    np.testing.assert_allclose(fast, slow, atol=2e-3)
    assert not np.array_equal(fast, slow) and float(np.ptp(slow)) > 0.1


def ranked(vlm: VLM, run: Path, shapes: dict[str, Path], **sweep: Any) -> bytes:
    """`hones neurons --method rounds` on retrieval; the bytes of every neuron's importance."""
    study = Study(vlm, RunFolder(run), SweepSettings(batch_size=2, **sweep))
    method = make_method("rounds").with_schedule(rounds=2)
    study.neurons(make_task("retrieval", candidates=3), load_items(shapes["discovery"]), None, 0.1, method=method)
    return (run / "retrieval" / "neuron_importance.npy").read_bytes()


def test_a_killed_ranking_goes_on_to_the_same_bytes_on_other_workers(
    vlms: dict[str, VLM], shapes: dict[str, Path], tmp_path: Path
) -> None:
    """Six pictures of three prompts: a shard each, as no prefix crosses the bounds of a shard; other workers, other
    free memory.
    """
    vlm = vlms["qwen"]
    whole = ranked(vlm, tmp_path / "whole", shapes)
    with pytest.raises(Killed):
        ranked(vlm, tmp_path / "run", shapes, workers=Several(1, 7), memory=1e-9)
    others = Several(4)
    assert ranked(vlm, tmp_path / "run", shapes, workers=others) == whole
    assert len(others.computed) == 12 - 7


def test_a_sum_that_was_cut_before_is_gone_on_with(
    vlms: dict[str, VLM], discovery: Items, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of the time when shards were whole batches, of which the first two are summed."""
    vlm, task = vlms["llava"], make_task("retrieval", candidates=3)
    examples = task.examples(discovery)[0][:3]
    opened = np.ones(importance_shape(vlm), dtype=np.float32)
    before = RunningSum((1, 1, *opened.shape), {"rows": 2}, tmp_path / "sum.safetensors")
    knowledge = Knowledge(vlm, task, examples, 2)
    with frozen(vlm.model):
        for start in (0, 2):
            before.add(knowledge.gradient(opened, range(start, start + 2)), (0, 0))
        expected = knowledge.gradient(opened)
    cut: list[list[range]] = []
    whole_batches = gates_module._cut_anywhere
    monkeypatch.setattr(gates_module, "_cut_anywhere", lambda gated: cut.append(whole_batches(gated)) or cut[-1])
    settings = SweepSettings(
        batch_size=2, running_sum=lambda shape, plan, part="": RunningSum(shape, plan, tmp_path / "sum.safetensors")
    )
    found = make_method("hones+").importance(Context(vlm, task, examples, sweep=settings))
    assert cut == [[range(2), range(2, 4), range(4, 6), range(6, 8), range(8, 9)]]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=5e-6 * float(np.abs(expected).max()))
