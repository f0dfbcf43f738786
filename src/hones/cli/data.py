"""`hones data`: make, convert and check annotation files."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from hones.cli.options import Candidates, Images
from hones.cli.shown import ERR, OUT, counted, name_remarks, say

Format = Annotated[
    str, Option(help="unified, vqav2, gqa, textvqa, docvqa, coco, flickr30k, llava, table, hf; auto: by content.")
]
Shown = Annotated[str, Argument(help="File, folder or hf:OWNER/NAME, with ?option=value&... where needed.")]


def shapes(
    to: Annotated[Path, Option(help="Folder for the pictures and the annotation files.")],
    discovery: Annotated[int, Option(min=1)] = 500,
    dev: Annotated[int, Option(min=1)] = 200,
    test: Annotated[int, Option(min=1)] = 500,
    seed: Annotated[int, Option(help="Another seed gives other pictures.")] = 0,
    source: Annotated[
        str, Option(help="shapes, or signs: other fonts, tones, backgrounds and layout, for tests out of domain.")
    ] = "shapes",
) -> None:
    """Write built-in pictures with annotations for all four tasks, in three picture-disjoint splits."""
    from hones.data.shapes.files import write_shapes
    from hones.runs.record import RunFolder

    RunFolder(to)
    for split, file in write_shapes(to, {"discovery": discovery, "dev": dev, "test": test}, seed, source).items():
        say(f"{split}: {file}")


def words(
    to: Annotated[Path, Option(help="Folder for the annotation files.")],
    discovery: Annotated[int, Option(min=1)] = 48,
    dev: Annotated[int, Option(min=1)] = 100,
    test: Annotated[int, Option(min=1)] = 100,
    seed: Annotated[int, Option(help="Another seed gives other items.")] = 0,
) -> None:
    """Write items without pictures, for the four tasks of tiny-text: opposite, after, sum, backwards."""
    from hones.data.words import write_words
    from hones.runs.record import RunFolder

    RunFolder(to)
    for split, file in write_words(to, {"discovery": discovery, "dev": dev, "test": test}, seed).items():
        say(f"{split}: {file}")


@dataclass(kw_only=True)
class Coco:
    """Build the paper's file and its picture-disjoint splits from the official annotations of COCO.

    Example: hones data coco --captions captions_train2014.json --questions v2_OpenEnded_mscoco_train2014_questions.json
    --annotations v2_mscoco_train2014_annotations.json --text COCO_Text.json --images train2014 --to data
    """

    captions: Annotated[Path, Option(help="captions_train2014.json")]
    questions: Annotated[Path, Option(help="v2_OpenEnded_mscoco_train2014_questions.json")]
    annotations: Annotated[Path, Option(help="v2_mscoco_train2014_annotations.json")]
    text: Annotated[Path, Option(help="COCO_Text.json or cocotext.v2.json")]
    images: Annotated[Path, Option(help="Folder of the pictures, train2014.")]
    to: Annotated[Path, Option(help="Folder for the annotation files.")]
    discovery: Annotated[int, Option(min=1)] = 5000
    dev: Annotated[int, Option(min=1)] = 2000
    test: Annotated[int, Option(min=1)] = 3000
    seed: Annotated[int, Option(help="Of the splits, and of the choice.")] = 3407
    choose: Annotated[str, Option(help="Of several words or questions: first or seeded.")] = "first"

    def execute(self) -> None:
        from rich.table import Table

        from hones.data.coco import CocoFiles, build_coco
        from hones.runs.record import RunFolder

        RunFolder(self.to)
        files = CocoFiles(self.captions, self.questions, self.annotations, self.text, self.images)
        sizes = {"discovery": self.discovery, "dev": self.dev, "test": self.test}
        choose: Any = self.choose  # checked there
        built = build_coco(files, self.to, sizes, self.seed, choose)
        table = Table("step", "pictures left", "lost")
        before = None
        for name, count in built.counts.items():
            table.add_row(name, f"{count:,}", "" if before is None else f"{before - count:,}")
            before = count
        OUT.print(table)
        for name, file in built.files.items():
            say(f"{name}: {file}")
        say(f"pictures: pass --images {self.images}")


def convert(
    source: Shown,
    to: Annotated[Path, Option(help="The unified JSON file to write; its folder is made.")],
    images: Images = None,
    format: Format = "auto",
    limit: Annotated[int | None, Option(min=1, help="The first N items only.")] = None,
) -> None:
    """Write any known format as unified JSON; rows that cannot be read are named.

    Pictures that a dataset holds itself are copied to images/ beside the file; others stay where they are.

    Example: hones data convert "questions.json?annotations=annotations.json" --images val2014 --to vqa.json
    """
    from hones.data.convert import convert as write
    from hones.data.items import load_items
    from hones.data.sources import Source, refuse_source
    from hones.views.terminal import left_out_list

    refuse_source(Source.parse(source, format), to)
    items = load_items(source, images=images, format=format, limit=limit)
    folder = write(items, to)
    name_remarks(items.remarks)
    if items.left_out:
        ERR.print(left_out_list([("file", item) for item in items.left_out], ""))
    say(f"{counted(len(items))} ({items.format}): {to}")
    say(f"pictures: {folder}")


def check(
    file: Shown,
    images: Images = None,
    format: Format = "auto",
    pictures: Annotated[bool, Option(help="Open every picture too.")] = True,
    task: Annotated[
        str | None,
        Option(help="vqa, ocr, caption, retrieval, your TASK.yaml or FILE.py:CLASS; with commas. [default: the four]"),
    ] = None,
    candidates: Candidates = 50,
    strict: Annotated[bool, Option("--strict", help="Exit code 2 if there is any problem.")] = False,
    json: Annotated[Path | None, Option(help="Write the report as JSON too.")] = None,
) -> None:
    """Count the items that each task can use and name every problem with the first ids.

    Example: hones data check textvqa_val.json --images train_images

    For a task of your own: hones data check items.csv --task docs/examples/capitals/task.yaml
    """
    from rich.table import Table

    from hones.data.items import load_items
    from hones.data.sources import Source, refuse_source
    from hones.files import write_json
    from hones.tasks import make_tasks
    from hones.tasks.check import check_items

    if json is not None:
        refuse_source(Source.parse(file, format), json)
    tasks = None if task is None else make_tasks(task, candidates=candidates)
    items = load_items(file, images=images, format=format)
    report = check_items(items, candidates=candidates, pictures=pictures, tasks=tasks)
    say(f"{file}: {counted(report.items)} ({report.format})")
    table = Table("task", "usable", "refused", "not annotated")
    for row in report.tasks:
        table.add_row(row.task, str(row.usable), str(row.refused), str(row.not_annotated))
    OUT.print(table)
    for title, findings in (("problem", report.problems), ("remark", report.remarks)):
        if findings:
            listed = Table("", title, "items", "the first", "example")
            for finding in findings:
                first = ", ".join(finding.first)
                listed.add_row(finding.where, finding.kind, str(finding.count), first, finding.example)
            OUT.print(listed)
    if json is not None:
        write_json(json, report.to_json())
        say(f"written: {json}")
    if strict and report.problems:
        sys.exit(2)
