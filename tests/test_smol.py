"""The training of smol-llava (tools/smol), on a random base: what is trained is what is asked, and what is shipped."""

import random
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from test_merged import save_base

sys.path.append(str(Path(__file__).parents[1] / "tools"))
from smol.architecture import GRID, Parts, build
from smol.clock import Clock, descend, load, save, threads
from smol.difference import difference_of, load_shipped
from smol.files import write_photographs
from smol.muon import orthogonal
from smol.photographs import Photograph, Photographs, Word, content_words, is_test, read_photographs, vocabulary
from smol.pictures import make_drawing, pixels, with_word, written
from smol.prompts import Sequencer, of_drawing
from smol.soft_words import SoftWords
from smol.updates import add_updates, updates

from hones import load_items
from hones.data.items import check_pictures
from hones.models.merged import DIFFERENCE
from hones.models.merged.weights import base_of_folder, merge
from hones.models.wordings import LLAVA, WORDINGS


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def parts(base: Path) -> Parts:
    parts = build(base)
    add_updates(parts.language, rank=2)
    for _, update in updates(parts.language):
        update.up.data.normal_()
    return parts


def test_packed_prompts_are_computed_as_if_each_stood_alone(parts: Parts) -> None:
    drawing = make_drawing("packed", boxed=True)
    assert drawing.lettering is not None
    prompts = of_drawing(drawing.scene, drawing.lettering.text, random.Random(0))
    prompts.insert(1, replace(prompts[0], answer="seven red lines"))  # another answer to the same question
    sequencer = Sequencer(parts.tokenizer)
    sequences = sequencer.sequences([prompts, prompts[:1]])
    features = parts.features(pixels([drawing.picture] * 2, parts.image_processor))
    embedded = parts.language.embed_tokens(sequences.ids)
    shown = (sequences.ids == sequencer.picture)[..., None]
    final = parts.language(
        inputs_embeds=embedded.masked_scatter(shown, features),
        attention_mask=sequences.mask,
        position_ids=sequences.positions,
    ).last_hidden_state
    packed = final[sequences.rows, sequences.columns] @ parts.model.lm_head.weight.T
    for number, prompt in enumerate([*prompts, prompts[0]]):
        text = WORDINGS[LLAVA].format(image="<image>\n", prompt=prompt.text) + f" {prompt.answer}"
        ids = parts.tokenizer(text)["input_ids"]
        at = ids.index(sequencer.picture)
        ids = torch.tensor([[*ids[:at], *[sequencer.picture] * GRID**2, *ids[at + 1 :]]])
        alone = parts.model(input_ids=ids, pixel_values=pixels([drawing.picture], parts.image_processor)).logits[0]
        own = sequences.owners == number
        labels = sequences.labels[own]
        assert labels[-1] == parts.tokenizer.eos_token_id
        assert torch.equal(labels[:-1], ids[0, -len(labels) + 1 :])
        torch.testing.assert_close(packed[own], alone[-len(labels) :], rtol=1e-4, atol=1e-4)


def test_pixels_are_those_of_the_models_own_image_processor(parts: Parts) -> None:
    pictures = [make_drawing(f"pixels/{i}", boxed=True).picture for i in range(3)]
    own = parts.image_processor(images=pictures, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixels(pictures, parts.image_processor), own, rtol=1e-5, atol=1e-5)


def test_what_is_shipped_merges_into_what_was_trained(parts: Parts, base: Path) -> None:
    size = parts.model.config.get_text_config().vocab_size
    merged = merge(base_of_folder(base).weights, difference_of(parts), size)
    drawing = pixels([make_drawing("merged", boxed=False).picture], parts.image_processor)
    ids = torch.tensor([[*[parts.tokenizer.convert_tokens_to_ids("<image>")] * GRID**2, 5, 6, 7]])
    trained = parts.model(input_ids=ids, pixel_values=drawing).logits
    assert {tensor.dtype for tensor in merged.values()} == {torch.float16}
    plain = build(base)
    missing = plain.model.load_state_dict({n: w.float() for n, w in merged.items()}, strict=False)
    assert missing.missing_keys == ["lm_head.weight"] and not missing.unexpected_keys
    loaded = plain.model(input_ids=ids, pixel_values=drawing).logits
    assert (trained - loaded).abs().max() < 0.01 * trained.abs().max()
    untrained = build(base).model(input_ids=ids, pixel_values=drawing).logits
    assert (trained - untrained).abs().max() > 0.1 * trained.abs().max(), "the updates matter"


def test_training_goes_on_from_what_is_shipped(parts: Parts, base: Path, tmp_path: Path) -> None:
    shipped = difference_of(parts)
    save_file(shipped, tmp_path / DIFFERENCE)
    again = build(base, seed=1)
    load_shipped(again, tmp_path)  # the first phase has no updates
    add_updates(again.language, rank=2)
    load_shipped(again, tmp_path)
    loaded = difference_of(again)
    assert loaded.keys() == shipped.keys()
    assert all(torch.equal(loaded[name], weight) for name, weight in shipped.items())


def test_soft_words_say_what_stands_in_reading_order(parts: Parts) -> None:
    words = SoftWords(parts, ["dog", "grass"], torch.tensor([0.2, 0.1]))
    for seed in ("a", "b", "c"):
        drawing = make_drawing(seed, boxed=True)
        assert drawing.lettering is not None
        target, spoken = words.cells(drawing.scene, drawing.rows, drawing.lettering)
        said = [cell for cell in range(GRID**2) if spoken[cell]]
        things = [word for thing in drawing.scene.things for word in (thing.colour, thing.shape)]
        expected = [words.of(f" {word}") for word in things] + [words.of(c) for c in drawing.lettering.text]
        above = drawing.scene.place == "above"
        count = len(drawing.lettering.text)
        wanted = expected if above else expected[-count:] + expected[:-count]
        assert torch.equal(target[said], torch.stack(wanted))
        nothing = words.of(" .")
        assert all(torch.equal(target[cell], nothing) for cell in range(GRID**2) if not spoken[cell])
        assert words.cell_loss(target[None], target[None], spoken[None]) < words.cell_loss(
            target[None].roll(1, 1), target[None], spoken[None]
        )


def test_a_killed_phase_goes_on_at_its_checkpoint(tmp_path: Path) -> None:
    def fresh() -> tuple[torch.nn.Linear, list[torch.optim.Optimizer], Clock]:
        torch.manual_seed(0)
        module = torch.nn.Linear(2, 1)
        groups = [{"params": [*module.parameters()], "peak": 0.1}]
        return module, [torch.optim.AdamW(groups, lr=0.1)], Clock(minutes=1)

    def run(module: torch.nn.Linear, optimizers: list[torch.optim.Optimizer], clock: Clock, steps: int) -> None:
        def gradients(kind: str, seed: str, trained: list) -> tuple[list, float, dict[str, float]]:
            loss = (module(torch.ones(1, 2) * clock.step) ** 2).sum()
            return [*torch.autograd.grad(loss, trained)], 2.0, {kind: loss.item()}

        with threads(2) as pool:
            for _ in range(steps):
                descend(pool, gradients, ("x", "y"), str(clock.step), optimizers)
                clock.tick()

    through, optimizers, clock = fresh()
    run(through, optimizers, clock, steps=4)
    first, optimizers, clock = fresh()
    run(first, optimizers, clock, steps=2)
    save(tmp_path / "at.pt", {"m": first}, optimizers, clock)
    second, optimizers, clock = fresh()
    assert load(tmp_path / "at.pt", {"m": second}, optimizers, clock) and clock.step == 2
    run(second, optimizers, clock, steps=2)
    assert torch.equal(second.weight, through.weight)
    assert not load(tmp_path / "none.pt", {})


def test_a_rate_falls_to_almost_nothing_when_the_time_is_over() -> None:
    clock = Clock(minutes=1, step=100)
    optimizer = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "peak": 2.0}], lr=1.0)
    clock.set_rates([optimizer], warm=10)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(2.0, rel=1e-2) and not clock.over
    clock.seconds = 60
    clock.set_rates([optimizer], warm=10)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.04) and clock.over


def test_a_process_that_was_stopped_has_not_used_its_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("smol.clock.time.monotonic", lambda: now[0])
    clock = Clock(minutes=60, at=now[0])
    for seconds in (10, 3000, 10):
        now[0] += seconds
        clock.tick()
    assert clock.seconds == 10 + 120 + 10 and clock.due(130) and not clock.due(1)


@pytest.mark.parametrize("shape", [(3, 8), (8, 3), (5, 5)])
def test_orthogonal_keeps_directions_and_evens_out_sizes(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape)
    u, _, v = torch.linalg.svd(orthogonal(x), full_matrices=False)
    s = torch.linalg.svdvals(orthogonal(x))
    own, _, other = torch.linalg.svd(x, full_matrices=False)
    assert s.min() > 0.4 and s.max() < 1.3
    torch.testing.assert_close(u @ v, own @ other, rtol=0, atol=0.6)
    assert torch.equal(orthogonal(torch.zeros(shape)), torch.zeros(shape))


def test_photographs_are_read_and_split_by_their_names(tmp_path: Path) -> None:
    names = [f"{i}_a.jpg" for i in range(60)]
    for source, file, header, row in (
        ("flickr8k", "captions.csv", "image,caption", '{0},"A dog , on grass ."\n{0},Two dogs .'),
        ("daquar", "questions.csv", "image,question,answer", "{0},what is on the table?,red cup"),
        ("words", "words.csv", "image,text", "{0},Stop"),
    ):
        folder = tmp_path / source
        (folder / "images").mkdir(parents=True)
        (folder / file).write_text("\n".join([header, *(row.format(name) for name in names)]) + "\n")
    kept, others = read_photographs(tmp_path, test=True), read_photographs(tmp_path, test=False)
    assert {p.path.name for p in kept.captioned} == {name for name in names if is_test(name)} != set()
    assert len(kept.captioned) + len(others.captioned) == len(names)
    assert kept.captioned[0].captions == ["A dog , on grass", "Two dogs"] and others.asked[0].questions
    assert len({is_test(word.path.name.rpartition("_")[0]) for word in kept.words}) == 1, "by the picture they are of"
    assert content_words("A dog , on Grass .") == ["dog", "grass"]
    assert vocabulary(kept.captioned)[0] == "dog"


def test_photographs_become_items_of_one_task_each_and_no_picture_is_in_two_files(tmp_path: Path) -> None:
    def picture(name: str) -> Path:
        path = tmp_path / name
        Image.new("RGB", (40, 30), (9, 99, 9)).save(path)
        return path

    kept = Photographs(
        [Photograph(picture(f"c{i}.png"), captions=["A dog", "Two dogs"]) for i in range(12)],
        [Photograph(picture(f"q{i}.png"), questions=[(f"what {n} ?", "cup") for n in range(6)]) for i in range(5)],
        [Word(picture(f"w{i}.png"), "Stop") for i in range(5)],
    )
    files = write_photographs(tmp_path / "out", kept, {"dev": 3, "test": 2}, seed=1, questions=4)
    seen: dict[str, set[str | None]] = {}
    for split, file in files.items():
        items = load_items(file)
        check_pictures(items)
        size = 3 if split == "dev" else 2
        kinds = [[item for item in items if getattr(item, kind)] for kind in ("captions", "vqa", "ocr")]
        assert [len(kind) for kind in kinds] == [size, 4 * size, size] and len(items) == 6 * size
        assert not items.left_out
        for item in kinds[2]:
            assert item.ocr is not None and item.ocr.bbox is not None and item.ocr.text == "Stop"
        seen[split] = {item.file_name for item in items}
    assert not seen["dev"] & seen["test"]

    (file,) = write_photographs(tmp_path / "all", kept, {"test": 12}, seed=1, questions=4, apart=False).values()
    assert sum(bool(item.captions) for item in load_items(file)) == 12, "words lie on captioned photographs too"


def test_a_pasted_word_lies_in_its_box_with_a_cell_for_each_character() -> None:
    rng = random.Random(0)
    ground = Image.new("RGB", (96, 96), (255, 0, 0))
    for text in ("a", "Stop", "CHARACTER", "somewhatlongword"):
        word = written(text, rng)
        picture, lettering = with_word(ground, word, rng)
        x, y, width, height = lettering.box
        changed = np.argwhere((np.asarray(picture) != np.asarray(ground)).any(-1))
        assert changed.min(0).tolist() >= [y, x] and (changed.max(0) <= [y + height, x + width]).all()
        assert x >= 0 and y >= 0 and x + width < 96 and y + height < 96
        assert [c for c, *_ in lettering.middles] == [*text]
        assert all(x < a < x + width and y < b < y + height for _, a, b in lettering.middles)
