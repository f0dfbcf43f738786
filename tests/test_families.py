"""Every family that is said to be served: its claims measured, its edits and write-in against independent routes."""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from by_hand_models import BY_HAND, load_family
from family_models import FAMILIES
from family_models_apart import save_gemma3, save_glm4v, save_mllama
from helpers import PROMPTS, encoded_probe, without_head
from torch import Tensor
from transformers.utils import is_torchvision_available

from hones import HonesError, attribute_neurons, load_vlm, make_task, mask_neurons, replace_heads, verify
from hones.data.items import Items
from hones.data.shapes.scene import draw, make_scene
from hones.method.found import HeadScore
from hones.models.pixtral import PixtralParts
from hones.models.vlm import VLM, Encoded
from hones.models.writing import activations, contributions, is_plain, readout_of
from hones.stats import Interval
from hones.sweep.run import SweepSettings
from hones.sweep.verify import Claim, _distance, _worst

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # GLM-4V's own processor
TABLE = Path(__file__).parents[1] / "docs" / "families.md"
WITH_MORE_AFTER_DOWN_PROJ = {"GLM-4V": save_glm4v, "Gemma 3": save_gemma3, "Mllama": save_mllama}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], VLM]:
    """Families by name, each built and loaded once."""
    folder, known = tmp_path_factory.mktemp("families"), {}

    def load(family: str) -> VLM:
        if family not in known:
            known[family] = load_family(family, folder / family.replace(" ", "-"))
        return known[family]

    return load


FAULTY = pytest.mark.xfail(
    transformers.__version__ == "5.24.0", reason="its forward reads an output that it does not have", strict=True
)
MADE_BY_HAND = [pytest.param(family, marks=FAULTY if family == "Llama 4" else ()) for family in BY_HAND]


@pytest.mark.parametrize("family", [*FAMILIES, *MADE_BY_HAND])
def test_the_table_of_families_is_what_a_run_says(family: str, loaded: Callable[[str], VLM]) -> None:
    found = verify(loaded(family))
    assert found.failed == []
    table, _ = TABLE.read_text().split("## Text-only models")
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith(f"| {family} |")]
    assert [row[2:4] for row in rows] == [["verified", found.engine]], "run tools/families.py again"


def test_the_table_names_all_families_and_no_other() -> None:
    lines = TABLE.read_text().split("|---|---|---|---|---|\n")[1].split("\n\n")[0].splitlines()
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines] == [*FAMILIES, *BY_HAND]


@pytest.mark.parametrize("family", WITH_MORE_AFTER_DOWN_PROJ)
def test_contributions_sum_to_what_the_block_adds(family: str, loaded: Callable[[str], VLM]) -> None:
    """Measured at the residual: what leaves a layer, less what leaves it with its FFN's output taken away."""
    vlm = loaded(family)
    assert not is_plain(vlm.anatomy)
    encoded = encoded_probe(vlm)
    u = torch.nn.functional.normalize(torch.randn(len(PROMPTS), vlm.anatomy.width), dim=-1)
    total = contributions(vlm, encoded, readout_of(vlm, u)).sum(-1)
    with torch.no_grad():
        for number, layer in enumerate(vlm.anatomy.layers):
            left: list[Tensor] = []
            keep = partial(lambda left, _, args, out: left.append(out[:, -1]), left)
            hooks = [layer.block.register_forward_hook(keep)]
            vlm.logits(encoded, 1)
            hooks.append(layer.mlp.register_forward_hook(lambda _, args, out: torch.zeros_like(out)))  # pyright: ignore
            vlm.logits(encoded, 1)
            for hook in hooks:
                hook.remove()
            expected = ((left[0] - left[1]) * u).sum(-1)
            torch.testing.assert_close(total[:, number], expected, atol=1e-5, rtol=1e-4)
            plain = (activations(vlm, encoded)[:, number] * (u @ layer.down_proj.weight)).sum(-1)
            if layer.post_norm is not None or layer.gate is not None:
                assert not torch.allclose(plain, expected, atol=1e-3), "W_down z is not what enters the residual"


def test_replay_and_the_definition_agree_on_importance_through_a_norm(
    loaded: Callable[[str], VLM], discovery: Items
) -> None:
    vlm, task = loaded("GLM-4V"), make_task("vqa")
    examples, _ = task.examples(discovery)
    heads = [HeadScore(0, 1, Interval(1.0, 1.0, 1.0), 0.0, 0.0), HeadScore(1, 2, Interval(0.5, 0.5, 0.5), 0.0, 0.0)]
    found = attribute_neurons(vlm, task, examples[:3], heads, sweep=SweepSettings("replay"))
    expected = attribute_neurons(vlm, task, examples[:3], heads, sweep=SweepSettings("naive"))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (expected > 0).any()


def test_in_parallel_blocks_a_head_leaves_its_own_layers_neurons_alone(loaded: Callable[[str], VLM]) -> None:
    def change(vlm: VLM) -> Tensor:
        encoded = encoded_probe(vlm)
        base = activations(vlm, encoded)
        with replace_heads(vlm.model, [(1, 0)]):
            return (activations(vlm, encoded) - base).abs().amax((0, 2))

    parallel, sequential = change(loaded("Aya Vision")), change(loaded("LLaVA-1.5"))
    assert parallel[1] == 0 and parallel[2] > 0
    assert sequential[1] > 0


@pytest.mark.parametrize("family", ["Mllama", "Gemma 3", "Aya Vision"])
def test_head_edits_equal_folded_weights(family: str, loaded: Callable[[str], VLM]) -> None:
    """Cross-attention layers too."""
    vlm = loaded(family)
    encoded = encoded_probe(vlm)
    for layer in range(3):
        with torch.no_grad():
            expected = without_head(vlm.model, layer, 2)(**encoded.inputs).logits[:, -1]
            with replace_heads(vlm.model, [(layer, 2)]):
                found = vlm.model(**encoded.inputs).logits[:, -1]
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("family", "name"),
    [("PaliGemma", "token_type_ids"), ("Mllama", "cross_attention_mask"), ("Gemma 3", "token_type_ids")],
)
def test_inputs_without_which_a_family_is_silently_wrong(family: str, name: str, loaded: Callable[[str], VLM]) -> None:
    vlm = loaded(family)
    encoded = encoded_probe(vlm)
    without = Encoded({k: v for k, v in encoded.inputs.items() if k != name})
    with torch.no_grad():
        difference = (vlm.logits(encoded, keep=1) - vlm.logits(without, keep=1)).abs().max()
    assert difference > 1e-3


@pytest.mark.parametrize("family", MADE_BY_HAND)
def test_inputs_made_by_hand_are_those_that_the_model_reads(family: str, loaded: Callable[[str], VLM]) -> None:
    """Another picture gives other logits, each row of a batch has its own, and the processor wrote all its tokens."""
    vlm = loaded(family)
    pictures = [draw(make_scene(f"test/{i}")) for i in range(2)]
    one, other = (vlm.encode([picture], ["What?"]) for picture in pictures)
    a, b = (vlm.logits(x, keep=1)[0, -1].detach() for x in (one, other))
    assert (a - b).abs().max() > 1e-3 and one.inputs["input_ids"].equal(other.inputs["input_ids"])
    both = vlm.logits(vlm.encode(pictures, ["What?", "What?"]), keep=1)[:, -1]
    torch.testing.assert_close(both.detach(), torch.stack([a, b]), atol=1e-4, rtol=1e-4)
    if family == "Llama 4":
        tiles = len(one.inputs["pixel_values"])
        assert one.inputs["input_ids"][0].tolist().count(vlm.tokenizer.convert_tokens_to_ids("<|patch|>")) == 4 * tiles
        return
    counts = vlm.processor.image_processor.preprocess([[pictures[0]]])  # pyright: ignore[reportAttributeAccessIssue]
    wanted = counts["num_img_tokens"][0] if family.startswith("Phi") else len(counts["image_token_pooling"])
    mark = vlm.tokenizer.convert_tokens_to_ids("<|image|>" if family.startswith("Phi") else "<im_patch>")
    assert one.inputs["input_ids"][0].tolist().count(mark) == wanted


def test_an_answer_of_paligemma_does_not_see_itself(loaded: Callable[[str], VLM]) -> None:
    vlm = loaded("PaliGemma")
    picture = draw(make_scene("test/0"))
    one, other = (vlm.encode_with_answers([picture], ["What?"], [answer]) for answer in ("a red star", "a red tree"))
    assert one.answer is not None and (one.inputs["token_type_ids"][one.answer] == 1).all()
    with torch.no_grad():
        first = int(one.answer[0].int().argmax()) - 1
        a, b = (vlm.logits(x)[0, first] for x in (one, other))
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_pixtral_from_parts_is_the_familys_own(loaded: Callable[[str], VLM], monkeypatch: pytest.MonkeyPatch) -> None:
    """The family's module imports torchvision, of which it uses nothing for pictures prepared by PIL."""
    from importlib import import_module

    used: Any = loaded("Pixtral in LLaVA").processor
    if not is_torchvision_available():
        for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.v2"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        functional: Any = sys.modules["torchvision.transforms.v2"]
        functional.functional = functional
        functional.InterpolationMode = functional
        monkeypatch.setattr("transformers.utils.import_utils.is_torchvision_available", lambda: True)
    own = import_module("transformers.models.pixtral.processing_pixtral").PixtralProcessor
    kinds: list[Any] = [PixtralParts, own]
    parts, theirs = (
        kind(used.image_processor, used.tokenizer, patch_size=8, chat_template=used.chat_template) for kind in kinds
    )
    picture, text = draw(make_scene("test/0")).resize((40, 24)), "USER: [IMG]\nWhat?"
    a, b = (p(images=[[picture]], text=[text], return_tensors="pt") for p in (parts, theirs))
    assert a.keys() == b.keys() and a["input_ids"].shape[1] > 15
    assert all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a)


# --- what verify finds out ---


def test_a_claim_that_fails_is_named_with_exit_code_2(
    model_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hones.cli import main

    monkeypatch.setattr("hones.sweep.verify._no_op", lambda *_: 0.25)
    out = tmp_path / "claims.json"
    monkeypatch.setattr(sys, "argv", ["hones", "verify", "--model", str(model_folders["llava"]), "--out", str(out)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert "a hook that changes nothing changes no bit: 0.25; expected at most 0" in printed.err
    content = json.loads(out.read_text())
    assert content["ok"] is False and [c["name"] for c in content["claims"] if not c["ok"]] == [
        "a hook that changes nothing changes no bit"
    ]


@pytest.mark.parametrize(
    ("spoil", "claim"),
    [
        ("noise", "a hook that changes nothing changes no bit"),
        ("outside", "z through down_proj is the FFN's output"),
        ("scaled", "an FFN adds what its neurons write"),
        ("position", "a batch gives what each row alone does"),
    ],
)
def test_a_model_that_breaks_a_claim_is_found_out(
    spoil: str, claim: str, model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = load_vlm(str(model_folders["llava"]))
    block: Any = vlm.anatomy.layers[1].block
    if spoil == "noise":
        block.mlp.register_forward_hook(lambda _, args, out: out + 1e-3 * torch.randn_like(out))
    elif spoil == "outside":
        block.mlp.register_forward_hook(lambda _, args, out: out + args[0].mean())
    elif spoil == "scaled":
        block.mlp.register_forward_hook(lambda _, args, out: 0.5 * out)
    else:
        embed = vlm.model.get_input_embeddings()
        embed.register_forward_hook(lambda _, args, out: out + 0.1 * torch.arange(out.shape[1])[:, None])  # pyright: ignore
    found = verify(vlm)
    assert claim in [c.name for c in found.failed]
    with pytest.raises(HonesError, match=r"layer|expected"):
        found.check()


def test_a_distance_that_is_no_number_does_not_hide_behind_others() -> None:
    assert not Claim("any", _worst([1e-7, float("nan"), 2e-7]), 1.0).ok
    one, nothing = torch.ones(1, 3), torch.zeros(1, 3)
    assert _distance(nothing, nothing) == 0 and _distance(one, nothing) == float("inf") and _distance(one, one) == 0


def test_write_in_is_refused_where_it_is_not_known(
    model_folders: dict[str, Path], discovery: Items, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A norm after down_proj under a name that is not known: masking works, attribution stops."""
    monkeypatch.setattr("hones.models.finding.POST_NORMS", ())
    monkeypatch.setattr("hones.models.finding.GATES", ())
    vlm = load_vlm(str(save_glm4v(model_folders["llava"].parent / "unknown-norm")))
    with pytest.raises(HonesError, match=r"what the FFN of layer 0 adds .* is not what its neurons write"):
        readout_of(vlm, torch.ones(1, vlm.anatomy.width))
    with mask_neurons(vlm.model, [(0, 1)]):
        vlm.generate(encoded_probe(vlm), 2)
