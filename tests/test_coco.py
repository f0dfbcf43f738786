"""The paper's file from COCO's official annotations, against a slow and obvious definition."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_cli import call
from test_readers import JSON, replaced, spots

from hones import HonesError, load_items
from hones.data.coco import CocoFiles, build_coco

SPLITS = {"discovery": 4, "dev": 2, "test": 3}


def official(seed: int = 0, pictures: int = 120, version: int = 1) -> dict[str, Any]:
    """Small files in COCO's forms, in which many pictures lack something."""
    rng = random.Random(seed)
    ids = rng.sample(range(1, 500), pictures)
    images = [{"id": i, "file_name": f"COCO_train2014_{i:012d}.jpg", "height": 60, "width": 80} for i in ids]
    captions, words, questions, annotations = [], {}, [], []
    for i in ids:
        for n in range(rng.choice([5, 5, 5, 6, 4])):
            captions.append({"id": 10 * i + n, "image_id": i, "caption": rng.choice(["A cat.", "A dog.", "A hat."])})
        for n in range(rng.choice([0, 1, 2, 2])):
            kind = rng.choice(["legible", "legible", "illegible"])
            word = {"id": 10 * i + n, "image_id": i, "bbox": rng.choice([[1, 2, 30, 10], [1.5, 2, 9, 4]])}
            word |= {"legibility": kind, "language": "english", "class": "machine printed", "area": 20}
            word["polygon" if version == 1 else "mask"] = [1, 2, 31, 2, 31, 12, 1, 12]
            if kind == "legible" or version == 2:
                word["utf8_string"] = rng.choice(["STOP", "8", ""]) if kind == "legible" else ""
            words[str(word["id"])] = word
        for n in range(rng.choice([0, 1, 3])):
            questions.append({"image_id": i, "question": f"What is {n}?", "question_id": 1000 * i + n})
            if rng.random() < 0.8:
                answers = [{"answer": a, "answer_confidence": "yes", "answer_id": k + 1} for k, a in enumerate("aab")]
                row = {"question_id": 1000 * i + n, "image_id": i, "multiple_choice_answer": "a", "answers": answers}
                annotations.append({**row, "question_type": "what", "answer_type": "other"})
    for rows in (captions, questions, annotations):
        rng.shuffle(rows)
    text = {"imgs": {str(i): {"id": i} for i in ids}, "anns": words, "imgToAnns": {}, "info": {}}
    return {
        "captions": {"images": images, "annotations": captions},
        "text": text if version == 1 else {**text, "cats": {}},
        "questions": {"data_subtype": "train2014", "questions": questions},
        "annotations": {"annotations": annotations},
    }


def write(folder: Path, content: dict[str, Any]) -> CocoFiles:
    (folder / "images").mkdir(exist_ok=True)
    for name, value in content.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    for row in (*official()["captions"]["images"], *official(pictures=4)["captions"]["images"]):
        (folder / "images" / row["file_name"]).touch()
    return CocoFiles(**{name: folder / f"{name}.json" for name in content}, images=folder / "images")


def eligible(content: dict[str, Any]) -> dict[int, tuple[str, int]]:
    """Word and question id of every picture that has everything: the first of each."""
    found = {}
    for picture in content["captions"]["images"]:
        i = picture["id"]
        captions = [c for c in content["captions"]["annotations"] if c["image_id"] == i]
        words = [w for w in content["text"]["anns"].values() if w["image_id"] == i and w["legibility"] == "legible"]
        words = sorted((w["id"], w["utf8_string"]) for w in words if w["utf8_string"])
        answered = {a["question_id"] for a in content["annotations"]["annotations"]}
        asked = [q["question_id"] for q in content["questions"]["questions"] if q["image_id"] == i]
        asked = sorted(q for q in asked if q in answered)
        if len(captions) >= 5 and words and asked:
            found[i] = (words[0][1], asked[0])
    return found


@pytest.mark.parametrize("version", [1, 2])
def test_the_files_hold_what_the_definition_says(tmp_path: Path, version: int) -> None:
    content = official(version=version)
    built = build_coco(write(tmp_path, content), tmp_path / "to", SPLITS)
    expected = eligible(content)
    rows = json.loads(built.files["all"].read_text())["data"]
    assert {r["image_id"]: (r["ocr"]["text"], r["vqa"]["question_id"]) for r in rows} == expected
    assert [*built.counts.values()] == sorted(built.counts.values(), reverse=True)
    assert (max(built.counts.values()), min(built.counts.values())) == (120, len(expected))
    splits = {name: load_items(built.files[name], images=tmp_path / "images") for name in SPLITS}
    taken = [item.id for items in splits.values() for item in items.items]
    assert {name: len(items) for name, items in splits.items()} == SPLITS and len(set(taken)) == len(taken)
    first = splits["dev"].items[0]
    assert first.vqa is not None and first.vqa.all_answers == ["a", "a", "b"] and len(first.captions) >= 5
    kept = next(r for r in rows if str(r["image_id"]) == first.id)
    assert [c["caption_id"] for c in kept["captions"]] == sorted(c["caption_id"] for c in kept["captions"])


def test_equal_seeds_give_equal_bytes_whatever_the_order_of_rows(tmp_path: Path) -> None:
    content = official()
    other = {**content, "questions": {**content["questions"], "questions": content["questions"]["questions"][::-1]}}
    texts = []
    for name, files, seed in (("a", content, 1), ("b", other, 1), ("c", content, 2)):
        (tmp_path / name).mkdir()
        built = build_coco(write(tmp_path / name, files), tmp_path / name / "to", SPLITS, seed, "seeded")
        texts.append([built.files[split].read_bytes() for split in ("all", *SPLITS)])
    assert texts[0] == texts[1]
    assert all(a != b for a, b in zip(texts[0], texts[2], strict=True))
    record = json.loads((tmp_path / "c/to/provenance.json").read_text())
    assert record["seed"] == 2 and record["sizes"] == SPLITS and set(record["sha256"]) == {f"{n}.json" for n in content}


def test_the_command_counts_every_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = write(tmp_path, official())
    options = [
        x
        for name in ("captions", "questions", "annotations", "text", "images")
        for x in (f"--{name}", getattr(files, name))
    ]
    sizes = [x for name, size in SPLITS.items() for x in (f"--{name}", size)]
    assert call("data", "coco", *options, "--to", tmp_path / "to", *sizes) == 0
    assert "legible word" in capsys.readouterr().out
    assert call("data", "coco", *options, "--to", tmp_path / "to") == 2
    error = capsys.readouterr().err
    left = len(eligible(official()))
    assert f"{left} pictures have all annotations; expected 10000 (5000 discovery + 2000 dev + 3000 test)" in error
    assert "without legible word" in error


def test_pictures_that_are_not_there_are_not_taken(tmp_path: Path) -> None:
    content = official()
    files, lost = write(tmp_path, content), min(eligible(content))
    (files.images / f"COCO_train2014_{lost:012d}.jpg").unlink()
    built = build_coco(files, tmp_path / "to", {"test": 1})
    assert str(lost) not in {item.id for item in load_items(built.files["all"], images=files.images).items}
    assert built.counts["picture file"] == built.counts["pictures with captions"] - 1


@pytest.mark.parametrize("option", ["captions", "text", "questions", "annotations"])
def test_a_file_in_the_place_of_another_is_one_line(tmp_path: Path, option: str) -> None:
    files = write(tmp_path, official())
    (tmp_path / f"{option}.json").write_text('{"info": {}}')
    with pytest.raises(HonesError, match=f"{option}.json is not the file that its option asks for"):
        build_coco(files, tmp_path / "to", SPLITS)


@given(data=st.data())
def test_any_value_anywhere_is_built_or_one_line(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder, content = tmp_path_factory.mktemp("fuzz"), official(pictures=4)
    spot = data.draw(st.sampled_from(spots(content)).filter(bool))
    changed = replaced(content, spot, data.draw(JSON))
    try:
        build_coco(write(folder, {name: changed[name] for name in content}), folder / "to", {"test": 1})
    except HonesError as error:
        assert "\n" not in str(error)
