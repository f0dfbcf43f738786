"""Share: a run as a page and as figures for papers, and learned scales in other people's hands."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from hones.cli.options import LoadingOptions, Model, Revision
from hones.cli.shown import OUT, say, warn
from hones.errors import HonesError

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")]


def report(
    run: Run, to: Annotated[Path | None, typer.Option(metavar="FILE.html", help="[default: RUN/report.html]")] = None
) -> None:
    """Everything a run found, as one HTML file that opens offline.

    Example: hones report runs/a
    """
    from hones.views.report.page import write_report

    _name_stale(run)
    say(f"report: {write_report(run, to)}")


def figures(
    run: Run,
    to: Annotated[Path | None, typer.Option(metavar="DIR", help="[default: RUN/figures]")] = None,
    form: Annotated[str, typer.Option("--format", help="pdf, svg or both.")] = "both",
) -> None:
    """The figures of a run for papers: neurons per layer, groups with their drops, head maps, comparison.

    Example: hones figures runs/a --format pdf
    """
    from hones.views.report.figures import write_figures

    _name_stale(run)
    for file in write_figures(run, to, form):
        say(f"written: {file}")


def _name_stale(run: Path) -> None:
    from hones.runs.results import read_results
    from hones.runs.stale import stale

    for line in stale(read_results(run)):
        warn(line)


@dataclass(kw_only=True)
class Export(LoadingOptions):
    """Write scales as a folder that other software loads, with a model card.

    Example: hones export runs/a/vqa/steering/hones/scales.json --model tiny-llava --format lora --to vqa-lora
    """

    scales: Annotated[Path, typer.Argument(metavar="SCALES.json", help="scales.json of `hones steer`.")]
    model: Model
    to: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write; new or empty.")]
    form: Annotated[
        str, typer.Option("--format", help="merged (a plain checkpoint), ia3 or lora (PEFT adapters), json.")
    ] = "merged"
    run: Annotated[
        Path | None, typer.Option(help="Run folder that wrote the file, if the file was copied from there.")
    ] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export in DIR.")] = False
    check: Annotated[bool, typer.Option("--check/--no-check", help="Load the export again and compare its logits.")] = (
        True
    )
    dtype: Annotated[
        str | None,
        typer.Option(help="float32, bfloat16 or float16. [default: merged: as the model is stored; else auto]"),
    ] = None
    revision: Revision = None

    def execute(self) -> None:
        from hones.log import LOG, log_to
        from hones.models.place import check_place
        from hones.runs.artifacts import read_scales

        check_place(self.model)
        read_scales(self.scales)  # a bad file is named before torch is imported

        from hones.sharing.base import stored_dtype
        from hones.sharing.export import check_request, export_scales
        from hones.sharing.origin import run_of
        from hones.views.terminal import view

        check_request(self.form, self.to, self.overwrite)
        run = self.run or run_of(self.scales)
        if run is not None and (run / "run.json").is_file():
            log_to(run)
        dtype = self.dtype or (stored_dtype(self.model, self.revision) if self.form == "merged" else "auto")
        vlm = self.spec_of(self.model, dtype, self.revision).load()
        export = export_scales(
            vlm, self.scales, self.to, format=self.form, run=self.run, overwrite=self.overwrite, check=self.check
        )
        LOG.info("exported %s to %s as %s", self.scales, self.to, self.form)
        OUT.print(view(export))
        say(f"written: {self.to}")


def publish(
    run: Run,
    to: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="[default: RUN/found.json, or RUN/TASK/heads.mib.json]")
    ] = None,
    form: Annotated[
        str,
        typer.Option("--format", help="found (all of it), or mib (one task's head scores, as MIB reads them)."),
    ] = "found",
    task: Annotated[str | None, typer.Option(help="mib: which task, where the run has several.")] = None,
    model: Annotated[str | None, typer.Option(help="mib: the run's model, if it has moved.")] = None,
) -> None:
    """What a run found as one small JSON file, for other people: no paths, no data.

    Example: hones publish runs/a --to found.json
    """
    if form not in ("found", "mib"):
        raise HonesError(f"--format {form}", expected="found or mib")
    if form == "found" and (task is not None or model is not None):
        raise HonesError("--task and --model", expected="with --format mib")
    if form == "mib":
        from hones.sharing.mib import publish_mib

        say(f"written: {publish_mib(run, to, task, model)}")
        return
    from hones.sharing import publish as sharing

    say(f"written: {sharing.publish(run, to)}")


def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that `hones export` wrote.")],
    to: Annotated[str, typer.Option(metavar="USER/REPO", help="Repository on the hub; created if need be.")],
    yes: Annotated[bool, typer.Option("--yes", help="Upload. [default: only say what would be uploaded]")] = False,
    private: Annotated[bool, typer.Option("--private", help="A new repository is private.")] = False,
    token_from_env: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Environment variable with the token. [default: huggingface_hub's login]"),
    ] = None,
) -> None:
    """Upload an export to the hub; a dry run unless --yes.

    Example: hones push vqa-lora --to me/llava-vqa-lora
    """
    from hones.log import LOG, log_to
    from hones.sharing.push import push_export
    from hones.views.terminal import view

    run = next((parent for parent in folder.resolve().parents if (parent / "run.json").is_file()), None)
    if run is not None:
        log_to(run)
    upload = push_export(folder, to, yes=yes, private=private, token_from_env=token_from_env)
    LOG.info("%s %s to %s", "uploaded" if upload.url else "would upload", folder, to)
    OUT.print(view(upload))
    say(f"uploaded: {upload.url}" if upload.url else "nothing was uploaded: this is a dry run, add --yes to upload")
