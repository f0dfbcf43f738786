"""What a model's own files say of how it is asked and when it has answered: used, recorded, and warned of where they
disagree.
"""

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from text_models import CHAT, save_text
from transformers import AutoModelForCausalLM, AutoTokenizer

from hones import HonesError, attach, load_items, load_vlm, make_task, verify
from hones.data.items import Items
from hones.data.shapes.scene import draw, make_scene
from hones.errors import BadItem
from hones.models.conventions import CONFIG, GENERATION, TOKENIZER
from hones.models.template import OF_PROCESSOR, OF_TOKENIZER
from hones.models.vlm import VLM
from hones.models.wordings import LLAVA, NONE
from hones.runs.former import as_recorded
from hones.runs.prepared import prepare
from hones.runs.record import RunFolder

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHATML_OF_TEXT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
IM_END, END = 528, 523  # of the built-in LLaVA's tokenizer, which has ChatML's marks too


def reloaded(vlm: VLM, template: Any = None, of_tokenizer: Any = None, ends: Any = None, **of_generation: Any) -> VLM:
    """The LLaVA attached again, with another template and other settings; its processor and model are copies."""
    processor: Any = copy.deepcopy(vlm.processor)
    processor.chat_template = template
    processor.tokenizer.chat_template = of_tokenizer
    model = copy.deepcopy(vlm.model)
    if ends is not None:
        model.generation_config.eos_token_id = ends  # pyright: ignore[reportOptionalMemberAccess]
    for key, value in of_generation.items():
        setattr(model.generation_config, key, value)
    return attach("llava", model, processor)


def edited(folder: Path, to: Path, **changes: Any) -> Path:
    """A copy of a model folder with keys of its JSON files changed: config__eos_token_id=5 in config.json."""
    shutil.copytree(folder, to)
    for name, value in changes.items():
        file, _, key = name.partition("__")
        path = to / f"{file}.json"
        content = json.loads(path.read_text())
        (content.get("text_config", content) if file == "config" else content)[key] = value
        path.write_text(json.dumps(content))
    return to


@pytest.fixture(scope="module")
def llava(vlms: dict[str, VLM]) -> VLM:
    return vlms["llava"]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> VLM:
    return load_vlm(str(save_text(tmp_path_factory.mktemp("text") / "llama", "llama", head_dim=8)))


# Templates


def test_without_a_template_of_its_own_llava_is_asked_in_its_wording(llava: VLM) -> None:
    used = llava.conventions
    assert (used.template.source, used.prompt) == (LLAVA, "USER: <image>\n{prompt}\nASSISTANT:")
    assert not used.disagree and not used.remarks


def test_a_models_own_template_wins_and_is_said(llava: VLM) -> None:
    with pytest.warns(UserWarning, match=r"ends an answer at '</s>' \(id 523\), .*'<\|im_end\|>' \(id 528\)"):
        found = reloaded(llava, CHATML)
    assert found.wrap("Hi?") == "<|im_start|>user\n<image>Hi?<|im_end|>\n<|im_start|>assistant\n"
    assert found.wrap("Hi?", picture=False) == "<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\n"
    assert found.conventions.template.source == OF_PROCESSOR
    assert f"not in {LLAVA}" in found.conventions.remarks[0]
    assert found.eos_ids == [IM_END, END], "an answer ends at either; the template's belongs to it"


@pytest.mark.filterwarnings("ignore:.*ends an answer at")
@pytest.mark.parametrize("of_text", [False, True])
def test_a_template_of_the_tokenizer_counts_where_the_processor_has_none(llava: VLM, of_text: bool) -> None:
    """As LLaVA around Llama 3 has it: a template for text, in which the picture stands before the prompt."""
    found = reloaded(llava, None, CHATML_OF_TEXT if of_text else CHATML)
    mark = "<image>\n" if of_text else "<image>"
    assert found.wrap("Hi?") == f"<|im_start|>user\n{mark}Hi?<|im_end|>\n<|im_start|>assistant\n"
    assert found.conventions.template.source == OF_TOKENIZER


@pytest.mark.filterwarnings("ignore:.*ends an answer at")
def test_of_several_templates_by_name_the_default_is_used(llava: VLM) -> None:
    found = reloaded(llava, {"rag": "{{ nothing }}", "default": CHATML})
    assert found.wrap("Hi?").startswith("<|im_start|>user\n<image>Hi?")
    with pytest.raises(HonesError, match=r"llava: the processor's chat template is rag, tools; expected one text"):
        reloaded(llava, {"rag": CHATML, "tools": CHATML})


@pytest.mark.filterwarnings("ignore:.*ends an answer at")
def test_processor_and_tokenizer_with_other_templates_are_warned_of(llava: VLM) -> None:
    with pytest.warns(UserWarning, match="processor's chat template and the tokenizer's chat template ask the same te"):
        reloaded(llava, CHATML, CHAT)
    assert not reloaded(llava, CHATML, CHATML_OF_TEXT).conventions.disagree[1:], "the same words for a text"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}", r"fails: cannot render the processor's chat template \(.*endfor"),
        ("{{ raise_exception('no system prompt') }}", "fails: .*no system prompt"),
        ("{% for m in messages %}<image>{% endfor %}", "does not write the prompt's text as it is"),
        ("<image>{{ messages[0]['content'] }}", "does not write the prompt's text as it is"),
        (
            CHATML.replace("part['text']", "part['text'] | upper").replace("is string", "is none"),
            "does not write the prompt's text as it is",
        ),
        (CHATML.replace("'<image>'", "''"), "writes no placeholder for a picture"),
        (CHATML.replace("'<image>'", "'<image><image>'"), "writes more than one placeholder"),
        (7, "the processor's chat template is a int; expected one text"),
    ],
)
def test_a_template_that_cannot_be_used_is_one_line(llava: VLM, template: Any, message: str) -> None:
    with pytest.raises(HonesError, match=message):
        reloaded(llava, template)


def test_a_template_that_writes_the_date_says_the_same_every_day(text: VLM) -> None:
    tokenizer = copy.deepcopy(text.tokenizer)
    tokenizer.chat_template = "Today is {{ strftime_now('%d %b %Y') }}. " + CHAT
    found = attach("llama", text.model, tokenizer)
    assert found.wrap("Hi").startswith("Today is 26 Jul 2024. ")
    assert "26 Jul 2024 stands for every day" in found.conventions.remarks[0]


def test_a_prompt_that_its_template_refuses_is_left_out(text: VLM, tmp_path: Path) -> None:
    tokenizer = copy.deepcopy(text.tokenizer)
    tokenizer.chat_template = (
        "{% if 'forbidden' in messages[0]['content'] %}{{ raise_exception('no') }}{% endif %}" + CHAT
    )
    found = attach("llama", text.model, tokenizer)
    with pytest.raises(BadItem, match=r"cannot render the tokenizer's chat template \(.*no\)"):
        found.wrap("a forbidden word")


@pytest.mark.filterwarnings("ignore:.*ends an answer at")
def test_a_template_that_opens_a_thought_is_said(llava: VLM) -> None:
    thinks = CHATML.replace("<|im_start|>assistant\n{% endif", "<|im_start|>assistant\n<think>\n{% endif")
    assert "opens <think>, inside of which answers begin" in reloaded(llava, thinks).conventions.remarks[-1]
    closed = thinks.replace("<think>\n", "<think>\n\n</think>\n\n")
    assert len(reloaded(llava, closed).conventions.remarks) == 1


@pytest.mark.filterwarnings("ignore:.*ends an answer at")
def test_a_byte_order_mark_of_a_template_is_no_part_of_a_prompt(llava: VLM) -> None:
    assert reloaded(llava, f"\ufeff{CHATML}").wrap("Hi") == reloaded(llava, CHATML).wrap("Hi")


# End tokens


def test_stock_settings_need_no_warning(vlms: dict[str, VLM], text: VLM) -> None:
    """Sources that add to each other do not disagree."""
    assert vlms["qwen"].conventions.end is not None and vlms["qwen"].conventions.end.text == "<|im_end|>"
    assert vlms["qwen"].conventions.named[GENERATION] == vlms["qwen"].conventions.named[OF_PROCESSOR] == (529,)
    assert text.conventions.end is not None and text.conventions.end.text == "</s>"
    qwen = copy.deepcopy(vlms["qwen"].model)
    qwen.generation_config.eos_token_id = [524, 529]  # pyright: ignore[reportOptionalMemberAccess]
    found = attach("qwen", qwen, vlms["qwen"].processor)
    assert found.eos_ids == [529, 524], "the template's belongs to an answer, wherever it stands in the list"
    assert not found.conventions.disagree


@pytest.mark.parametrize("end", [97, [97]])
def test_two_sources_that_disagree_are_both_ends_and_warned_of(
    model_folders: dict[str, Path], tmp_path: Path, end: Any
) -> None:
    changes = {"config__eos_token_id": 97, "generation_config__eos_token_id": end}
    folder = edited(model_folders["qwen"], tmp_path / "tuned", **changes)
    with pytest.warns(UserWarning, match=r"generation_config ends an answer at .* \(id 97\), the processor's chat"):
        found = load_vlm(str(folder))
    assert found.eos_ids == [529, 97]
    encoded = found.encode_with_answers([None], ["Hi"], ["blue"])
    assert encoded.answer is not None
    assert encoded.inputs["input_ids"][0][encoded.answer[0]].tolist()[-1] == 529, "it teaches the template's"
    record = found.conventions.record()["end_tokens"]
    assert [(token["id"], token["from"]) for token in record] == [(529, [OF_PROCESSOR, TOKENIZER]), (97, [GENERATION])]


def test_generation_stops_at_either_end(llava: VLM) -> None:
    encoded = llava.encode([None], ["Hi there"])
    (ids,) = llava.generate_ids(encoded, 6)
    with pytest.warns(UserWarning, match="ends an answer at"):
        found = reloaded(llava, ends=ids[2])
    assert found.generate_ids(encoded, 6) == [ids[: 1 + ids.index(ids[2])]]


def test_an_end_that_is_no_special_token_is_not_part_of_the_text(llava: VLM) -> None:
    assert llava.text_of([64, 97]) != "a"
    with pytest.warns(UserWarning, match="ends an answer at"):
        assert reloaded(llava, ends=97).text_of([64, 97]) == "a"


def test_ids_that_the_model_lacks_are_left_out(llava: VLM) -> None:
    with pytest.warns(UserWarning, match=r"generation_config names the end token 99999, the model has 533 tokens"):
        assert reloaded(llava, ends=[END, 99999]).eos_ids == [END]


@pytest.mark.parametrize("ends", [[END, "</s>"], [END, True]])
def test_what_is_no_id_is_left_out(llava: VLM, ends: Any) -> None:
    with pytest.warns(UserWarning, match=rf"generation_config names the end token {ends[1]!r}, which is no id"):
        assert reloaded(llava, ends=ends).eos_ids == [END]


def test_a_model_without_any_end_token_answers_to_the_longest_length(text: VLM) -> None:
    model, tokenizer = copy.deepcopy(text.model), copy.deepcopy(text.tokenizer)
    tokenizer.eos_token = None
    for settings in (model.generation_config, model.config):
        settings.eos_token_id = None  # pyright: ignore[reportOptionalMemberAccess]
    with pytest.warns(UserWarning, match="no end token is named anywhere"):
        found = attach("endless", model, tokenizer)
    assert found.eos_ids == [] and found.conventions.end is None
    encoded = found.encode([None], ["Hi there"])
    assert len(found.generate_ids(encoded, 5)[0]) == 5
    assert found.gold_ids("Hi", "blue") == found.answer_ids("Hi", "blue")
    assert not found.conventions.decides()["end_tokens"]
    assert [claim.name for claim in verify(found).failed] == []


def test_config_json_counts_only_with_marks_of_the_vocabulary(text: VLM) -> None:
    """A configuration class names id 2 where the file names none, an ordinary word of other vocabularies."""
    model = copy.deepcopy(text.model)
    model.config.eos_token_id = 2
    assert attach("llama", model, text.tokenizer).conventions.named[CONFIG] == ()


def test_settings_of_generation_that_are_not_used_are_said(llava: VLM) -> None:
    found = reloaded(llava, do_sample=True, temperature=0.1, repetition_penalty=1.05, max_length=77, use_cache=False)
    settings = {"do_sample": True, "temperature": 0.1, "repetition_penalty": 1.05, "max_length": 77}
    assert dict(found.conventions.unused) == settings
    (remark,) = found.conventions.remarks
    assert "repetition_penalty 1.05" in remark and "answers are greedy" in remark
    assert found.conventions.record()["generation_settings_not_used"] == settings


# Padding


@pytest.mark.parametrize(
    ("without", "source"),
    [
        (("pad",), "the end token"),
        (("pad", "eos"), "the end token"),
        (("pad", "eos", "generation"), "the start token"),
        (("pad", "eos", "generation", "bos"), "the first token of the vocabulary"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*no end token is named anywhere")
def test_a_tokenizer_without_padding_pads_with_what_there_is(llava: VLM, without: tuple[str, ...], source: str) -> None:
    processor: Any = copy.deepcopy(llava.processor)
    model = copy.deepcopy(llava.model)
    for name in without:
        if name == "generation":
            for settings in (model.generation_config, model.config, model.config.get_text_config()):
                settings.eos_token_id = None  # pyright: ignore[reportOptionalMemberAccess]
        else:
            setattr(processor.tokenizer, f"{name}_token", None)
    found = attach("llava", model, processor)
    assert found.conventions.padding_from == source
    assert found.conventions.record()["padding"]["id"] == processor.tokenizer.pad_token_id
    prompts = ["Hi", "What is there to be seen in the middle?"]
    together = found.logits(found.encode([None, None], prompts), keep=1)[0, -1]
    alone = found.logits(found.encode([None], prompts[:1]), keep=1)[0, -1]
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-4)


def test_a_padding_token_that_the_model_lacks_is_not_used(llava: VLM) -> None:
    processor: Any = copy.deepcopy(llava.processor)
    processor.tokenizer.add_special_tokens({"pad_token": "<|new|>"})
    assert processor.tokenizer.pad_token_id >= 533
    assert attach("llava", llava.model, processor).conventions.padding_from == "the end token"


@pytest.mark.parametrize("family", ["llava", "qwen"])
def test_a_token_that_stands_for_pictures_does_not_pad(vlms: dict[str, VLM], family: str) -> None:
    """Processors count it, also where it is masked."""
    vlm = vlms[family]
    processor: Any = copy.deepcopy(vlm.processor)
    processor.tokenizer.pad_token = processor.image_token
    found = attach(family, vlm.model, processor)
    assert found.conventions.padding_from == "the end token"
    pictures = [draw(make_scene("pads"))] * 2
    asked = ["Hi", "What is there to be seen in the middle?"]
    together = found.logits(found.encode(pictures, asked), keep=1)[0, -1]
    alone = vlm.logits(vlm.encode(pictures[:1], asked[:1]), keep=1)[0, -1]
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-4)


# Yes and No


@pytest.fixture
def without_yes(text: VLM, monkeypatch: pytest.MonkeyPatch) -> Iterator[VLM]:
    vocabulary = {word: id for word, id in text.tokenizer.get_vocab().items() if word.lstrip("Ġ") not in ("Yes", "No")}
    monkeypatch.setattr(type(text.tokenizer), "get_vocab", lambda self: vocabulary)
    yield attach("nay", text.model, text.tokenizer)


def test_a_vocabulary_without_yes_and_no_serves_all_other_tasks(without_yes: VLM, tmp_path: Path) -> None:
    assert without_yes.answer_tokens.ids is None and "no tokens for Yes and No" in repr(without_yes)
    found = verify(without_yes)
    (unmet,) = [claim for claim in found.claims if not claim.ok]
    assert unmet.name == "Yes and No are different tokens" and "all others work" in unmet.note
    assert not found.failed, "no edit relies on it"
    assert {"setting": "Yes and No", "used": "none", "source": "the vocabulary"} in found.tables()[1].rows
    file = tmp_path / "items.json"
    file.write_text(json.dumps({"data": [{"item_id": "a", "question": "Is it so?", "answer": "yes"}]}))
    from hones.tasks.custom import task_of_content

    content = {"name": "so", "picture": "none", "prompt": "{question}", "target": "answer"}
    plain = task_of_content(content | {"metric": "exact_match"}, "task.yaml")
    assert len(prepare(without_yes, plain, load_items(file), "test").examples) == 1
    margins = task_of_content(content | {"metric": "yes_no_accuracy", "answers": "yes_no"}, "task.yaml")
    with pytest.raises(HonesError, match="nay: its vocabulary has no single tokens for Yes and No; expected two diff"):
        prepare(without_yes, margins, load_items(file), "test")


def test_retrieval_is_refused_where_yes_and_no_are_the_same(
    llava: VLM, monkeypatch: pytest.MonkeyPatch, discovery: Items
) -> None:
    vocabulary = {"Yes": 300, "No": 300}
    monkeypatch.setattr(type(llava.tokenizer), "get_vocab", lambda self: vocabulary)
    found = attach("same", llava.model, llava.processor)
    with pytest.raises(HonesError, match="same: Yes and No are the same token, id 300"):
        prepare(found, make_task("retrieval", candidates=2), discovery, "test")
    assert prepare(found, make_task("vqa"), discovery, "discovery").examples


def test_an_answer_that_merges_with_the_template_is_left_out_by_name(
    vlms: dict[str, VLM], discovery: Items, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = vlms["qwen"]
    task = make_task("vqa")
    examples, _ = task.examples(discovery)
    wanted = examples[1].target
    own = VLM.answer_ids

    def merges(self: VLM, prompt: str, answer: str) -> list[int]:
        if (prompt, answer) == (examples[1].prompts[0], wanted):
            raise BadItem(f"the tokenizer merges the template's end with its answer {answer!r}", kind="merges")
        return own(self, prompt, answer)

    monkeypatch.setattr(VLM, "answer_ids", merges)
    found = prepare(vlm, task, discovery, "dev")
    assert [(item.id, item.kind) for item in found.left_out] == [(examples[1].id, "merges")]
    assert len(found.examples) == len(examples) - 1
    assert len(prepare(vlm, task, discovery, "test").examples) == len(examples), "nothing is learned from these"


def test_a_tokenizer_merges_line_breaks(text: VLM) -> None:
    """Two in a row are one token of its own in many vocabularies."""
    tokenizer = copy.deepcopy(text.tokenizer)
    tokenizer.add_tokens([f"\n{text.answer_tokens.lead}\n"])
    found = attach("llama", text.model, tokenizer)
    with pytest.raises(BadItem, match="merges the template's end with its answer"):
        found.answer_ids("Hi", "\nblue")


# What is recorded


def test_the_record_is_what_verify_shows(llava: VLM) -> None:
    rows = {row["setting"]: row for row in verify(llava).tables()[1].rows}
    record = llava.conventions.record()
    assert json.loads(json.dumps(record)) == record
    assert rows["template"]["used"] == repr("USER: <image>\n{prompt}\nASSISTANT:")
    assert rows["an answer's end"]["used"] == "'</s>' (id 523)"
    assert rows["padding"]["source"] == TOKENIZER


def test_an_earlier_record_is_the_same_where_it_would_be_now(llava: VLM, text: VLM, tmp_path: Path) -> None:
    """Versions before this one recorded neither template nor ends, and a digest of every file of a folder."""
    for vlm in (llava, text):
        now = {"revision": vlm.revision, **vlm.conventions.decides()}
        before = {"revision": vlm.revision}
        assert as_recorded(vlm, now, before) == before
        assert as_recorded(vlm, now, now) == now
    with pytest.warns(UserWarning, match="ends an answer at"):
        other = reloaded(llava, CHATML)
    now = {"revision": "", **other.conventions.decides()}
    assert as_recorded(other, now, {"revision": ""}) == now, "it was asked in LLaVA's wording"


def test_a_run_is_not_gone_on_with_in_other_words(llava: VLM, tmp_path: Path) -> None:
    """Of a model in memory no revision tells that its template was changed."""
    run = RunFolder(tmp_path / "run")
    run.finish("vqa/heads", {"model": "llava", **llava.conventions.decides()}, {})
    with pytest.warns(UserWarning, match="ends an answer at"):
        other = reloaded(llava, CHATML)
    with pytest.raises(HonesError, match=r"holds vqa/heads with end_tokens = \[523\], now \[528, 523\]"):
        run.is_finished("vqa/heads", {"model": "llava", **other.conventions.decides()})
    same_ends = {**other.conventions.decides(), "end_tokens": [END]}
    with pytest.raises(
        HonesError, match=r"holds vqa/heads with template = \"USER: <image>.*, now \"<\|im_start\|>user"
    ):
        run.is_finished("vqa/heads", {"model": "llava", **same_ends})


def test_a_base_model_has_no_template(tmp_path: Path) -> None:
    folder = save_text(tmp_path / "base", "llama", head_dim=8, template=False, pads=False)
    model = AutoModelForCausalLM.from_pretrained(folder)
    found = attach("base", model, AutoTokenizer.from_pretrained(folder))
    assert (found.conventions.template.source, found.conventions.prompt) == (NONE, "{prompt}")
    assert found.conventions.padding_from == "the end token"
