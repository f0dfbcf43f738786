"""A chat template that is given in place of the model's own: used, recorded, kept to; what is noticed at loading."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from test_cli import call
from test_conventions import CHATML, END, IM_END, edited
from text_models import save_text

from hones import HonesError, load_vlm, read_config
from hones.errors import HonesWarning
from hones.models.spec import ModelSpec
from hones.models.template import find_template
from hones.models.vlm import VLM
from hones.models.wordings import given_text
from hones.runs.former import as_recorded, check_words
from hones.runs.paper import paper_config
from hones.runs.record import RunFolder
from hones.runs.stage import Stage, Workspace
from hones.sharing.manifest import Provenance
from hones.sharing.origin import Origin
from hones.sweep.ray.worker import for_workers

PAPERS = "USER: <image>\n{prompt}\nASSISTANT:"


@pytest.fixture(scope="module")
def chatml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("templates") / "chatml.jinja"
    file.write_text(CHATML)
    return file


@pytest.fixture(scope="module")
def tuned(model_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The LLaVA with a ChatML template of its own."""
    folder = edited(model_folders["llava"], tmp_path_factory.mktemp("tuned") / "llava")
    (folder / "chat_template.jinja").write_text(CHATML)
    return folder


@pytest.mark.filterwarnings("ignore:.*ends an answer at")
def test_the_papers_wording_is_had_by_name(tuned: Path) -> None:
    own, given = load_vlm(str(tuned)), load_vlm(str(tuned), chat_template="llava-1.5")
    assert own.conventions.prompt.startswith("<|im_start|>") and given.conventions.prompt == PAPERS
    assert own.conventions.record()["template"] == "the processor's chat template"
    assert given.conventions.record()["template"] == "LLaVA-1.5's wording (--chat-template llava-1.5)"
    assert "--chat-template llava-1.5 asks in that" in own.conventions.remarks[0]
    assert (own.eos_ids, given.eos_ids) == ([IM_END, END], [END])
    now = {"revision": given.revision, **given.conventions.decides()}
    before = {"revision": given.revision}
    assert as_recorded(given, now, before) == before, "it is how earlier versions asked any model of this type"
    with pytest.raises(HonesError, match=r"the run a was asked with template = \"USER: <im.*, now \"<\|im_start"):
        check_words(own, {**given.conventions.decides(), "end_tokens": own.eos_ids}, "the run a")


@pytest.mark.filterwarnings("ignore:.*ends an answer at")
def test_a_file_is_used_tried_and_recorded(vlms: dict[str, VLM], chatml: Path, tmp_path: Path) -> None:
    llava = vlms["llava"]
    found = find_template("llava", llava.model, llava.processor, str(chatml))
    assert found.wrap(llava.processor, "Hi", True) == "<|im_start|>user\n<image>Hi<|im_end|>\n<|im_start|>assistant\n"
    assert str(found) == f"the given chat template (--chat-template {chatml})" and not found.remarks
    as_json = tmp_path / "chat_template.json"
    as_json.write_text(json.dumps({"chat_template": CHATML}))
    assert given_text(str(as_json)) == CHATML
    bad = tmp_path / "bad.jinja"
    bad.write_text(CHATML.replace("'<image>'", "''"))
    with pytest.raises(HonesError, match=r"llava: the given chat template \(--chat-template .*bad\.jinja\) writes no"):
        find_template("llava", llava.model, llava.processor, str(bad))


def test_a_wording_for_pictures_is_not_for_other_types(vlms: dict[str, VLM]) -> None:
    qwen = vlms["qwen"]
    with pytest.raises(HonesError, match=r"qwen: --chat-template llava-1.5 is for models of type llava, this is qw"):
        find_template("qwen", qwen.model, qwen.processor, "llava-1.5")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no chat template .*; expected a file with a Jinja template, or a name: llava-1.5"),
        (b" \n", "holds no chat template"),
        (b'{"messages": []}', "holds no chat template"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git-lfs"),
    ],
)
def test_what_is_no_template_is_one_line_before_the_model(
    content: bytes | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "t.jinja"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(HonesError, match=message):
        load_vlm("no/such-model", chat_template=str(file))
    assert call("verify", "--model", "tiny-llava", "--chat-template", file) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_configuration_names_it_from_its_own_folder(tmp_path: Path) -> None:
    content = {"model": "m", "out": "o", "data": {"discovery": "a", "dev": "b", "test": "c"}}
    file = tmp_path / "run.yaml"
    for given, wanted in (("own.jinja", str(tmp_path / "own.jinja")), ("llava-1.5", "llava-1.5"), (None, None)):
        file.write_text(json.dumps(content | {"chat_template": given}))
        assert read_config(file).model_spec.chat_template == wanted
    file.write_text(paper_config("llava-1.5-7b"))
    assert read_config(file).chat_template == "llava-1.5"
    file.write_text(paper_config("qwen2.5-vl-7b"))
    assert read_config(file).chat_template is None


def test_workers_find_the_file_from_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for given, wanted in (("own.jinja", str(tmp_path / "own.jinja")), ("llava-1.5", "llava-1.5")):
        assert for_workers(ModelSpec("tiny-llava", chat_template=given), 0).chat_template == wanted


def test_scales_learned_in_other_words_are_warned_of(vlms: dict[str, VLM]) -> None:
    llava = vlms["llava"]
    for prompt in (None, PAPERS):
        with warnings.catch_warnings(action="error"):
            Origin(Path("run.json"), {}, Provenance(prompt=prompt)).check(llava)
    with pytest.warns(
        HonesWarning, match=r"run.json: these scales were learned on prompts as .*SSISTANT:.*llava is asked as"
    ):
        Origin(Path("run.json"), {}, Provenance(prompt=PAPERS.replace("\nA", " A"))).check(llava)


# What is noticed at loading, on the command line


def test_warnings_and_remarks_are_one_line_each_once(
    tuned: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice(spec: ModelSpec) -> Any:
        load_vlm(spec.name)
        return load_vlm(spec.name)

    monkeypatch.setattr(ModelSpec, "load", twice)
    with warnings.catch_warnings(action="default"):
        assert call("ask", "Is it red?", "--model", tuned) == 0
    lines = capsys.readouterr().err.splitlines()
    (warned,) = [line for line in lines if "ends an answer at" in line]
    assert warned.startswith(f"hones: warning: {tuned}: generation_config ends an answer at '</s>'")
    (remarked,) = [line for line in lines if "prompts are wrapped by" in line]
    assert remarked.startswith(f"{tuned}: prompts")
    assert not [line for line in lines if "stacklevel" in line or "UserWarning" in line]


def test_a_folder_that_lacks_something_says_what(tmp_path: Path) -> None:
    folder = save_text(tmp_path / "text", "llama", head_dim=8)
    (folder / "optimizer.pt").write_bytes(b"x")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    with pytest.raises(HonesError, match=r"text has no weights; optimizer.pt is of a training, .*expected model.s"):
        load_vlm(str(folder))
    (folder / "model.safetensors").write_bytes(weights)
    tokenizer = (folder / "tokenizer.json").read_bytes()
    (folder / "tokenizer.json").unlink()
    with pytest.raises(HonesError, match=r"text has no tokenizer; expected tokenizer.json, or a vocabulary"):
        load_vlm(str(folder))
    (folder / "tokenizer.json").write_bytes(tokenizer)
    (folder / "checkpoint-5").mkdir()
    (folder / "config.json").rename(folder / "checkpoint-5/config.json")
    with pytest.raises(HonesError, match=r"text has no config.json; .*one of its folders: checkpoint-5"):
        load_vlm(str(folder))


def test_a_difference_is_shown_where_it_is() -> None:
    from hones.files import short_of_two

    words = "<|im_start|>system\nYou are a helpful assistant of a long name.<|im_end|>\n"
    was, now = short_of_two(f"{words}Hi", f"{words}Ho")
    assert was.endswith('im_end|>\\nHi"') and now.endswith('im_end|>\\nHo"') and len(was) < 61
    assert short_of_two(1, 2) == ("1", "2") and short_of_two(None, "a") == ("null", '"a"')


def test_stages_of_a_task_are_asked_in_the_same_words(vlms: dict[str, VLM], tmp_path: Path) -> None:
    """Also where one has not been run yet: what the one before found is of other prompts."""
    llava, run = vlms["llava"], RunFolder(tmp_path)
    run.finish("vqa/heads", llava.conventions.decides(), {})
    assert not Stage(Workspace(llava, run), "vqa/neurons", {}).is_finished()
    other = {**llava.conventions.decides(), "template": "Human: {prompt}"}
    run.finish("vqa/heads", other, {})
    run.finish("ocr/heads", llava.conventions.decides(), {})
    assert not Stage(Workspace(llava, run), "ocr/neurons", {}).is_finished()
    with pytest.raises(HonesError, match=r"vqa/heads was asked with template = \"Human: .*, now \"USER: <image>"):
        Stage(Workspace(llava, run), "vqa/neurons", {}).is_finished()
    assert not Stage(Workspace(llava, run, fresh=True), "vqa/heads", {}).is_finished()
