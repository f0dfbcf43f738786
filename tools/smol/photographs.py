"""Photographs with captions, with questions, and photographed words, in the layouts in which people have them.

    flickr8k/captions.csv   image, caption          flickr8k/images/
    daquar/questions.csv    image, question, answer daquar/images/
    words/words.csv         image, text             words/images/        the picture is the word's box

A picture is kept for tests where the digest of its name says so (`is_test`), one in ten, so that a model trained here
can be measured anywhere on pictures that it never saw. Words go by the picture that they were cut from.
"""

import csv
import hashlib
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 112  # pictures are held at this size in memory; the tower sees 96 x 96 of it
TEST_SHARE = 10
VOCABULARY = 1200
_EVERYDAY = """
a an and are as at be been being but by can for from has have he her his in into is it its of on onto or out over
she some that the their them there these they this those through to up was were what where which while who with one
two other another each all not near next off around down very something someone how many color colour you your i s
left right side it's object objects image picture found between front behind above below under beside largest
"""
EVERYDAY = frozenset(_EVERYDAY.split())


def is_test(name: str) -> bool:
    """Whether the picture of this file name is kept for tests: one in ten, by the digest of its name."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % TEST_SHARE == 0


def content_words(text: str) -> list[str]:
    """The words that say what is in a picture, lower case."""
    return [word for word in re.findall(r"[a-z]+", text.lower()) if word not in EVERYDAY and len(word) > 1]


@dataclass
class Photograph:
    """One picture of a source and what was said of it: captions, or questions with their answers."""

    path: Path
    captions: list[str] = field(default_factory=list)
    questions: list[tuple[str, str]] = field(default_factory=list)

    @property
    def words(self) -> Counter[str]:
        """How often each content word was said of the picture."""
        said = [*self.captions, *(f"{question} {answer}" for question, answer in self.questions)]
        return Counter(word for text in said for word in set(content_words(text)))

    @cached_property
    def pixels(self) -> np.ndarray:
        """[SIDE, SIDE, 3] bytes of the middle square; held once read."""
        with Image.open(self.path) as file:
            picture = file.convert("RGB")
        edge = min(picture.size)
        left, top = (picture.width - edge) // 2, (picture.height - edge) // 2
        square = picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=(left, top, left + edge, top + edge))
        return np.asarray(square)


@dataclass
class Word:
    """A photographed word."""

    path: Path
    text: str

    @cached_property
    def picture(self) -> Image.Image:
        with Image.open(self.path) as file:
            return file.convert("RGB")


@dataclass
class Photographs:
    """The three sources of a folder, one side of the split."""

    captioned: list[Photograph]
    asked: list[Photograph]
    words: list[Word]


def rows(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV file with a header."""
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def read_photographs(folder: Path, test: bool) -> Photographs:
    """The photographs of a folder that are kept for tests, or all others."""
    captioned: dict[str, Photograph] = {}
    for row in rows(folder / "flickr8k" / "captions.csv"):
        name = row["image"]
        if is_test(name) == test:
            photograph = captioned.setdefault(name, Photograph(folder / "flickr8k" / "images" / name))
            photograph.captions.append(plain(row["caption"]))
    asked: dict[str, Photograph] = {}
    for row in rows(folder / "daquar" / "questions.csv"):
        name = row["image"]
        if is_test(name) == test:
            photograph = asked.setdefault(name, Photograph(folder / "daquar" / "images" / name))
            photograph.questions.append((row["question"].strip(), row["answer"].strip()))
    words = [
        Word(folder / "words" / "images" / row["image"], row["text"].strip())
        for row in rows(folder / "words" / "words.csv")
        if is_test(row["image"].rpartition("_")[0]) == test
    ]
    return Photographs([*captioned.values()], [*asked.values()], [w for w in words if w.text])


def plain(caption: str) -> str:
    """A caption without the blank before its full stop, and without the stop."""
    return caption.strip().rstrip(".").strip()


def vocabulary(photographs: list[Photograph]) -> list[str]:
    """The most frequent content words, by the number of pictures of which they were said."""
    seen: dict[str, int] = defaultdict(int)
    for photograph in photographs:
        for word in photograph.words:
            seen[word] += 1
    return sorted(seen, key=lambda word: (-seen[word], word))[:VOCABULARY]
