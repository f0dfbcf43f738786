"""A folder's files: which make the model, what lies beside them, and what is not what its name says."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from text_models import save_text
from transformers import AutoModelForCausalLM, AutoTokenizer

from hones import HonesError, attach, load_vlm
from hones.models.files import check_files, former_revision_of, model_files, revision_of
from hones.models.loading import former_digest
from hones.models.place import BUILT_IN, BUILT_IN_FOLDER
from hones.models.vlm import VLM
from hones.runs.former import is_revision

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 1234\n"
BESIDE = (
    *(".DS_Store", "._model.safetensors", ".config.json.swp", ".gitattributes", "README.md", "LICENSE", "x.lock"),
    *("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "trainer_state.json", "events.out.1"),
    *("all_results.json", "picture.png", "config.json.bak", "run.log", "train.py", "model.gguf", "pytorch_model.bin"),
)


@pytest.fixture
def folder(model_folders: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folders["llava"], tmp_path / "model"))


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_text(tmp_path_factory.mktemp("text") / "llama", "llama", head_dim=8)


def test_every_file_of_the_built_in_models_makes_them() -> None:
    """So their revision is the one that earlier versions recorded."""
    for name in BUILT_IN:
        folder = BUILT_IN_FOLDER / name
        assert model_files(folder) == sorted(folder.iterdir())
        assert revision_of(folder) == former_revision_of(folder) == former_digest(name)


def test_what_lies_beside_a_model_does_not_change_it(folder: Path) -> None:
    before = revision_of(folder)
    for name in BESIDE:
        (folder / name).write_bytes(b"anything")
    for name in (".git", "checkpoint-500", "onnx"):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text("{}")
    assert revision_of(folder) == before
    check_files(folder)


@pytest.mark.parametrize(
    "name",
    [
        *("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
        *("preprocessor_config.json", "processor_config.json", "special_tokens_map.json", "added_tokens.json"),
        *("chat_template.jinja", "chat_template.json", "vocab.json", "merges.txt", "tokenizer.model", "spiece.model"),
    ],
)
def test_what_makes_a_model_changes_it(folder: Path, name: str) -> None:
    before = revision_of(folder)
    with (folder / name).open("ab") as file:
        file.write(b" ")
    assert revision_of(folder) != before


def test_code_counts_where_it_is_run(folder: Path) -> None:
    before = revision_of(folder), revision_of(folder, code=True)
    (folder / "modeling_own.py").write_text("x = 1\n")
    assert revision_of(folder) == before[0] and revision_of(folder, code=True) != before[1]


def test_weights_in_parts_are_those_that_the_index_names(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.rename(folder / "part-a.safetensors")
    index = {
        "metadata": {},
        "weight_map": dict.fromkeys(load_file(folder / "part-a.safetensors"), "part-a.safetensors"),
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "other.safetensors").write_bytes(POINTER)
    assert {"part-a.safetensors", "model.safetensors.index.json"} <= {file.name for file in model_files(folder)}
    assert load_vlm(str(folder)).anatomy.shape == (3, 4, 20)
    (folder / "part-a.safetensors").unlink()
    with pytest.raises(HonesError, match=r"lacks part-a\.safetensors, which its index of weights names; download"):
        load_vlm(str(folder))


def test_a_revision_of_an_earlier_version_is_known(folder: Path) -> None:
    (folder / "README.md").write_text("A card.")
    vlm = load_vlm(str(folder))
    before = former_revision_of(folder)
    assert before != vlm.revision and is_revision(vlm, before) and is_revision(vlm, vlm.revision)
    assert not is_revision(vlm, "sha256:0000000000000000") and not is_revision(vlm, "")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:1000])


def page(file: Path) -> None:
    file.write_text("\n<!DOCTYPE html>\n<html><body>404</body></html>")


def newer(file: Path) -> None:
    content = json.loads(file.read_text())
    content["model"] = {"type": "Newest", "vocab": {}}
    file.write_text(json.dumps(content))


def as_checkpoint(content: Any) -> Callable[[Path], None]:
    def save(file: Path) -> None:
        file.with_name("model.safetensors").unlink()
        torch.save(content, file)

    return save


def pickled(file: Path) -> None:
    file.with_name("model.safetensors").unlink()
    file.write_bytes(pickle.dumps({"weights": [1, 2, 3]}))


def as_index(file: Path) -> None:
    file.with_name("model.safetensors").unlink()
    file.write_text('{"weight_map": 3}')


def pointer(file: Path) -> None:
    if file.suffix == ".bin":
        file.with_name("model.safetensors").unlink()
    file.write_bytes(POINTER)


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        *((name, pointer, r"is a git-lfs pointer, not the file itself; run `git lfs pull`") for name in (
            "model.safetensors", "pytorch_model.bin", "tokenizer.json", "config.json", "chat_template.jinja",
            "tokenizer_config.json", "generation_config.json", "preprocessor_config.json",
        )),
        *((name, page, "is a web page; expected the file itself") for name in ("model.safetensors", "config.json")),
        *((name, lambda file: file.write_bytes(b""), "is empty") for name in ("model.safetensors", "tokenizer.json")),
        *((name, cut, "cannot be read|cannot read") for name in ("model.safetensors", "tokenizer.json")),
        *((name, lambda file: file.write_text("{"), r"cannot read .* \(.*; expected JSON in UTF-8") for name in (
            "config.json", "generation_config.json", "processor_config.json",
        )),
        ("generation_config.json", lambda file: file.write_text("[]"), "is no JSON object"),
        ("model.safetensors.index.json", as_index, "is no index of weights"),
        ("chat_template.jinja", lambda file: file.write_bytes("{{ x }}".encode("utf-16")), "cannot read .*utf-8"),
        ("tokenizer.json", newer, r"it may be of a newer version than tokenizers \d.*: upgrade transformers"),
        ("pytorch_model.bin", pickled, "is no checkpoint of PyTorch"),
        ("pytorch_model.bin", as_checkpoint([1, 2]), "it holds a list, not weights by name"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_what_its_name_says_is_named(
    folder: Path, name: str, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(folder / name)
    with pytest.raises(HonesError, match=message) as error:
        load_vlm(str(folder))
    assert name in str(error.value) and "\n" not in str(error.value)


def test_a_pointer_that_is_not_read_is_no_hindrance(folder: Path) -> None:
    """Who fetches the safetensors alone has pointers in place of all else that a repository offers."""
    for name in ("pytorch_model.bin", "tokenizer.model", "consolidated.safetensors"):
        (folder / name).write_bytes(POINTER)
    check_files(folder)


def test_an_adapter_in_place_of_a_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "meta/base"}))
    with pytest.raises(HonesError, match=r"holds an adapter of meta/base, not a model; .*merge_and_unload\(\)"):
        load_vlm(str(tmp_path))


# Models that are wrapped


@pytest.fixture(scope="module")
def plain(text_folder: Path) -> tuple[Callable[[], Any], Any]:
    tokenizer = AutoTokenizer.from_pretrained(text_folder)
    return lambda: AutoModelForCausalLM.from_pretrained(text_folder), tokenizer


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")  # of PEFT itself
@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], ["o_proj", "down_proj"]])
def test_a_model_of_peft_is_told_to_merge(plain: tuple[Callable[[], Any], Any], targets: list[str]) -> None:
    peft = pytest.importorskip("peft")
    load, tokenizer = plain
    config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=targets)
    wrapped = peft.get_peft_model(load(), config)
    models, injected = [wrapped, wrapped.get_base_model()], load()
    try:
        injected.add_adapter(config)
    except ValueError as error:  # transformers 5.24 asks for a newer one than this may be
        assert "The version of PEFT you are using is not compatible" in str(error)
    else:
        models.append(injected)
    for model in models:
        with pytest.raises(HonesError, match=r"has an adapter that is not merged; .*merge_and_unload\(\)"):
            attach("tuned", model, tokenizer)
    assert isinstance(attach("tuned", wrapped.merge_and_unload(), tokenizer), VLM)


def test_an_adapter_without_its_configuration_is_found_by_its_layers(plain: tuple[Callable[[], Any], Any]) -> None:
    load, tokenizer = plain
    model = load()

    class Around(torch.nn.Linear):
        base_layer: torch.nn.Linear

    own = model.model.layers[1].self_attn.q_proj
    around = Around(own.in_features, own.out_features)
    around.base_layer = own
    model.model.layers[1].self_attn.q_proj = around
    with pytest.raises(HonesError, match=r"model\.layers\.1\.self_attn\.q_proj is a .*Around, an adapter that is not"):
        attach("tuned", model, tokenizer)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.compile itself
def test_wrappers_and_other_things_are_told_apart(plain: tuple[Callable[[], Any], Any]) -> None:
    load, tokenizer = plain
    for model, message in (
        (torch.compile(load()), r"OptimizedModule is a wrapper around a model; .*attach its \._orig_mod"),
        (torch.nn.DataParallel(load()), r"DataParallel is a wrapper around a model; .*attach its \.module"),
        (torch.nn.Linear(2, 2), "a Linear is no model of transformers"),
        ("gpt2", "a str is no model of transformers"),
    ):
        with pytest.raises(HonesError, match=message):
            attach("wrapped", model, tokenizer)  # pyright: ignore[reportArgumentType]
