"""The log loss of plain text under interventions, against transformers alone."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from family_models_apart import save_paligemma

from hones import load_vlm
from hones.models.interventions import BASELINE, Intervention
from hones.models.vlm import VLM
from hones.sweep.plain_text import plain_text_losses, plain_text_of
from hones.sweep.run import SweepSettings, sweep
from hones.tasks.plain_text import paragraphs

EDITS = [BASELINE, Intervention(masked=frozenset((1, i) for i in range(20))), Intervention(heads=frozenset({(0, 1)}))]


def by_hand(vlm: VLM, paragraph: str, edit: Intervention) -> float:
    """The mean loss of the tokens behind the first word, one text at a time through the model itself."""
    ids = torch.tensor([vlm.tokenizer(paragraph)["input_ids"]])
    first = len(vlm.tokenizer(paragraph.split(" ")[0])["input_ids"])
    with torch.no_grad(), edit.on(vlm.model):
        logits = vlm.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float()
    log_p = logits.log_softmax(-1)[0, :-1].gather(-1, ids[0, 1:, None])[:, 0]
    return float(-log_p[first - 1 :].mean())


def test_the_text_is_some_paragraphs_of_prose() -> None:
    examples = paragraphs()
    texts = [f"{example.prompts[0]} {example.target}" for example in examples.values()]
    assert len(texts) == 12 and 400 <= sum(len(text.split()) for text in texts) <= 600
    assert all(text.isascii() and text.endswith(".") for text in texts)


def test_losses_are_those_of_plain_transformers(vlm: VLM) -> None:
    """Every paragraph under every edit, by the fast engine and by the definition; no end token behind a paragraph."""
    losses = plain_text_losses(vlm, EDITS)
    expected = [
        [by_hand(vlm, f"{example.prompts[0]} {example.target}", edit) for example in paragraphs().values()]
        for edit in EDITS
    ]
    np.testing.assert_allclose(losses, expected, atol=2e-5)
    np.testing.assert_allclose(plain_text_losses(vlm, EDITS, SweepSettings("naive")), expected, atol=2e-5)
    assert np.abs(losses[1:] - losses[0]).max() > 1e-3, "edits that change nothing prove nothing"


def test_the_score_of_all_is_a_mean_over_tokens(vlms: dict[str, VLM]) -> None:
    vlm = vlms["llava"]
    task, examples = plain_text_of(vlm).job
    statistics = sweep(vlm, task, examples, [BASELINE]).astype(float)
    counts = [len(vlm.answer_ids(example.prompts[0], example.target)) for example in examples]
    np.testing.assert_array_equal(statistics[0, :, 1], counts)
    each = task.score(statistics[0])
    assert task.score(statistics[0].sum(0)) == pytest.approx(np.average(each, weights=counts))
    assert not pickle.loads(pickle.dumps(examples[0])).prompts[0].ends, "as a worker is handed it"


def test_a_model_that_cannot_be_asked_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vlms: dict[str, VLM]
) -> None:
    """Its processor wants a picture, or the paragraphs are longer than its context."""
    found = plain_text_of(load_vlm(str(save_paligemma(tmp_path / "model"))))
    assert found.examples == () and len(found.left_out) == 12 and "images" in found.left_out[0].reason
    vlm = vlms["llava"]
    counts = plain_text_of(vlm).task.tokens
    room = sorted(counts.values())[5]
    monkeypatch.setattr(vlm.model.config.get_text_config(), "max_position_embeddings", room)
    few = plain_text_of(vlm)
    assert 0 < len(few.examples) < 12 and len(few.examples) + len(few.left_out) == 12
    assert "longer" not in few.left_out[0].reason and str(room) in few.left_out[0].reason
