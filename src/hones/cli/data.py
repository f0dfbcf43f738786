"""`hones data`: make, convert and check annotation files."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

_out = Console(markup=False)

Images = Annotated[Path | None, typer.Option(help="Folder of the pictures. [default: images/ beside the file]")]
Candidates = Annotated[int, typer.Option(min=2, help="Retrieval: captions per picture, one of them true.")]
Format = Annotated[
    str, typer.Option(help="unified, vqav2, gqa, textvqa, flickr30k, table, hf, or auto: by the file's content.")
]
Shown = Annotated[str, typer.Argument(help="File, folder or hf:OWNER/NAME, with ?option=value&... where needed.")]

data_app = typer.Typer(help="Make, convert and check annotation files.", no_args_is_help=True)


@data_app.command()
def shapes(
    to: Annotated[Path, typer.Option(help="Folder for the pictures and the annotation files.")],
    discovery: Annotated[int, typer.Option(min=1)] = 500,
    dev: Annotated[int, typer.Option(min=1)] = 200,
    test: Annotated[int, typer.Option(min=1)] = 500,
    seed: Annotated[int, typer.Option(help="Another seed gives other pictures.")] = 0,
    source: Annotated[
        str, typer.Option(help="shapes, or signs: other fonts, tones, backgrounds and layout, for tests out of domain.")
    ] = "shapes",
) -> None:
    """Write built-in pictures with annotations for all four tasks, in three picture-disjoint splits."""
    from hones.data.shapes.files import write_shapes
    from hones.runs.record import RunFolder

    RunFolder(to)
    for split, file in write_shapes(to, {"discovery": discovery, "dev": dev, "test": test}, seed, source).items():
        _out.print(f"{split}: {file}", soft_wrap=True)


@data_app.command()
def coco(
    captions: Annotated[Path, typer.Option(help="captions_train2014.json")],
    questions: Annotated[Path, typer.Option(help="v2_OpenEnded_mscoco_train2014_questions.json")],
    annotations: Annotated[Path, typer.Option(help="v2_mscoco_train2014_annotations.json")],
    text: Annotated[Path, typer.Option(help="COCO_Text.json or cocotext.v2.json")],
    images: Annotated[Path, typer.Option(help="Folder of the pictures, train2014.")],
    to: Annotated[Path, typer.Option(help="Folder for the annotation files.")],
    discovery: Annotated[int, typer.Option(min=1)] = 5000,
    dev: Annotated[int, typer.Option(min=1)] = 2000,
    test: Annotated[int, typer.Option(min=1)] = 3000,
    seed: Annotated[int, typer.Option(help="Of the splits, and of the choice.")] = 3407,
    choose: Annotated[str, typer.Option(help="Of several words or questions: first or seeded.")] = "first",
) -> None:
    """Build the paper's file and its picture-disjoint splits from the official annotations of COCO.

    Example: hones data coco --captions captions_train2014.json --questions v2_OpenEnded_mscoco_train2014_questions.json
    --annotations v2_mscoco_train2014_annotations.json --text COCO_Text.json --images train2014 --to data
    """
    from rich.table import Table

    from hones.data.coco import CocoFiles, build_coco
    from hones.runs.record import RunFolder

    RunFolder(to)
    files = CocoFiles(captions, questions, annotations, text, images)
    chosen: Any = choose
    built = build_coco(files, to, {"discovery": discovery, "dev": dev, "test": test}, seed, chosen)
    table, before = Table("step", "pictures left", "lost"), None
    for name, count in built.counts.items():
        table.add_row(name, f"{count:,}", "" if before is None else f"{before - count:,}")
        before = count
    _out.print(table)
    for name, file in built.files.items():
        _out.print(f"{name}: {file}", soft_wrap=True)
    _out.print(f"pictures: pass --images {images}", soft_wrap=True)


@data_app.command()
def convert(
    source: Shown,
    to: Annotated[Path, typer.Option(help="The unified JSON file to write; its folder is made.")],
    images: Images = None,
    format: Format = "auto",
    limit: Annotated[int | None, typer.Option(min=1, help="The first N items only.")] = None,
) -> None:
    """Write any known format as unified JSON; rows that cannot be read are named.

    Pictures that a dataset holds itself are copied to images/ beside the file; others stay where they are.

    Example: hones data convert "questions.json?annotations=annotations.json" --images val2014 --to vqa.json
    """
    from hones.data.convert import convert as write
    from hones.data.items import load_items
    from hones.data.sources import Source, refuse_source

    refuse_source(Source.parse(source, format), to)
    items = load_items(source, images=images, format=format, limit=limit)
    folder = write(items, to)
    _findings("left out", [("file", bad) for bad in items.left_out])
    _out.print(f"{len(items)} items ({items.format}): {to}", soft_wrap=True)
    _out.print(f"pictures: {folder}", soft_wrap=True)


@data_app.command()
def check(
    file: Shown,
    images: Images = None,
    format: Format = "auto",
    pictures: Annotated[bool, typer.Option(help="Open every picture too.")] = True,
    candidates: Candidates = 50,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 2 if there is any problem.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write the report as JSON too.")] = None,
) -> None:
    """Count the items that each task can use and name every problem with the first ids.

    Example: hones data check textvqa_val.json --images train_images
    """
    from rich.table import Table

    from hones.data.items import load_items
    from hones.data.sources import Source, refuse_source
    from hones.files import write_json
    from hones.tasks.check import check_items

    if json is not None:
        refuse_source(Source.parse(file, format), json)
    report = check_items(load_items(file, images=images, format=format), candidates=candidates, pictures=pictures)
    table = Table("task", "usable", "refused", "not annotated", title=f"{file}: {report.items} items ({report.format})")
    for row in report.tasks:
        table.add_row(row.task, str(row.usable), str(row.refused), str(row.not_annotated))
    _out.print(table)
    for title, findings in (("problem", report.problems), ("remark", report.remarks)):
        if findings:
            listed = Table("", title, "items", "the first", "example")
            for one in findings:
                listed.add_row(one.where, one.kind, str(one.count), ", ".join(one.first), one.example)
            _out.print(listed)
    if json is not None:
        write_json(json, report.to_json())
        _out.print(f"written: {json}", soft_wrap=True)
    if strict and report.problems:
        sys.exit(2)


def _findings(title: str, rows: list[tuple[str, Any]]) -> None:
    from hones.views.terminal import left_out_list

    if rows:
        Console(stderr=True, markup=False).print(left_out_list(rows))
