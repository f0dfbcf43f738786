"""auto: its decision table, figures that stand on the pages it names; a run says, records and keeps the choice."""

import json
import re
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_cli import call

from hones import HonesError, load_items, make_task
from hones.data.items import Items
from hones.models.vlm import VLM
from hones.rivals.auto import ADVICE, FEWEST, MOST_GRADIENTS, AtHand, choose
from hones.rivals.known import KNOWN, ROUNDS
from hones.runs.config import read_config
from hones.runs.method_inputs import at_hand
from hones.runs.plan.forecast import Forecast, plan
from hones.runs.plan.request import make_request

ROOT = Path(__file__).parents[1]
FEW = 10
TRIED_END = next(n for n in count() if 6 * (n + FEW) + round(2 * (6 * (n + FEW) + 8 * n) / 3) > MOST_GRADIENTS) - 1
"""The most prompts for which best-of may be taken, ocr having FEW."""
ROUNDS_END = MOST_GRADIENTS // ROUNDS
"""The most prompts that rounds may take."""


def vqa(prompts: int = FEW, **more: Any) -> AtHand:
    return AtHand("vqa", prompts, **{"others": {"ocr": FEW}, **more})


@pytest.mark.parametrize(
    ("tasks", "method", "why"),
    [
        ([vqa()], "best-of", "annotated for other tasks, ocr, and which method spares these differs"),
        (
            [vqa(pictures=FEWEST - 1)],
            "selective",
            "annotated for other tasks, ocr, which it spares; 11 pictures or texts are too",
        ),
        ([vqa(others={})], "rounds", "no other task asks about the items of vqa; what it finds can cost"),
        ([vqa(heads_named=True)], "hones", "critical heads are named"),
        ([vqa(told_apart=False)], "hones", "all answers of vqa are the same"),
        # the bound itself is allowed, one prompt more is not
        ([vqa(TRIED_END)], "best-of", "ocr"),
        ([vqa(TRIED_END + 1)], "selective", "which it spares; best-of would take 100,0"),
        ([vqa(ROUNDS_END - FEW)], "selective", "ocr"),
        (
            [vqa(ROUNDS_END - FEW + 1)],
            "rounds",
            f"selective would take {6 * (ROUNDS_END + 1):,} gradients on vqa, more",
        ),
        ([vqa(ROUNDS_END, others={})], "rounds", "no other task"),
        ([vqa(ROUNDS_END + 1, others={})], "hones+", f"rounds would take {6 * (ROUNDS_END + 1):,} gradients on vqa"),
        ([vqa(ROUNDS_END + 1)], "hones+", "rounds would take"),
        # several tasks share a method, which has to be one for each of them
        ([vqa(), AtHand("ocr", FEW, {"vqa": FEW})], "best-of", "ocr, vqa"),
        ([vqa(), AtHand("ocr", FEW, {"vqa": FEW}, pictures=3)], "selective", "ocr, vqa"),
        ([vqa(), AtHand("ocr", FEW)], "rounds", "no other task asks about the items of ocr"),
        ([vqa(), AtHand("ocr", ROUNDS_END + 1)], "hones+", "on ocr"),
        ([vqa(), AtHand("ocr", FEW, told_apart=False)], "hones", "all answers of ocr are the same"),
    ],
)
def test_the_decision_table(tasks: list[AtHand], method: str, why: str) -> None:
    choice = choose(tasks)
    assert choice.method == method and why in choice.why
    assert str(choice) == f"auto takes {method}: {choice.why} ({choice.page})" and "\n" not in str(choice)


def test_figures_stand_on_the_page_that_is_named() -> None:
    """Every decimal number of a line is on its page; shares in per cent are, as numbers with the same interval."""
    for advice in ADVICE:
        page = (ROOT / advice.page).read_text(encoding="utf-8")
        figures = re.findall(r"\d[\d.]* \[[^]]+\]|\b0\.\d+", advice.measured)
        assert [figure for figure in figures if figure not in page] == [], advice
        assert advice.use == "auto" or advice.use in KNOWN
    assert sum(len(re.findall(r"\[", advice.measured)) for advice in ADVICE) > 5


def test_the_readme_and_the_command_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert call("methods") == 0
    shown = " ".join(capsys.readouterr().out.split())
    for advice in ADVICE:
        assert f"| {advice.want} | `--method {advice.use}` | {advice.measured} ([page]({advice.page})) |" in readme
    assert "Which to use" in shown and "thin evidence" in shown
    first = readme.index("## Which method to use")
    assert readme[:first].count("\n") < 40, "near the first screen"


def test_what_is_at_hand_is_read_from_the_items(vlms: dict[str, VLM], discovery: Items, tmp_path: Path) -> None:
    vlm, task = vlms["qwen"], make_task("vqa")
    examples, _ = task.examples(discovery)
    found = at_hand(vlm, task, discovery, examples)
    assert (found.task, found.prompts, found.told_apart, found.heads_named) == ("vqa", 6, True, False)
    assert found.others == {"ocr": 6, "caption": 6, "retrieval": 12}, "retrieval asks the true caption and another"
    assert at_hand(vlm, task, discovery, examples, times=10).others["retrieval"] == 120
    retrieval = make_task("retrieval", candidates=50)
    assert at_hand(vlm, retrieval, discovery, retrieval.examples(discovery)[0]).prompts == 6 * 5
    alone = items_of(discovery, tmp_path / "alone.json", ("captions", "ocr"))
    found = at_hand(vlm, task, load_items(alone, images=discovery.images), examples)
    assert found.others == {} and found.told_apart
    same = [examples[0]] * 3
    assert not at_hand(vlm, task, discovery, same).told_apart


def items_of(items: Items, file: Path, without: tuple[str, ...]) -> Path:
    """The items without some of their annotations."""
    rows = [item.model_dump(exclude_none=True) for item in items.items]
    data = [{key: value for key, value in row.items() if key not in without} for row in rows]
    file.write_text(json.dumps({"data": data}))
    return file


def test_the_choice_is_said_recorded_and_kept(
    model_folders: dict[str, Path], discovery: Items, shapes: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    model, out = model_folders["llava"], tmp_path / "run"

    def neurons(task: str, data: Path, *more: object) -> str:
        options = ("--images", discovery.images, "--ratio", 0.05, "--candidates", 3, "--out", out)
        assert call("neurons", "--model", model, "--task", task, "--data", data, *options, *more) == 0
        return " ".join(capsys.readouterr().err.split())

    said = neurons("vqa", shapes["discovery"], "--method", "auto")
    assert "vqa: auto takes selective: the items are annotated for other tasks, ocr, caption, retrieval" in said
    file = out / "vqa/neurons.json"
    before = file.read_bytes(), file.stat().st_mtime_ns
    assert {row["method"] for row in json.loads(before[0])} == {"selective"}
    record = json.loads((out / "run.json").read_text())["stages"]["vqa/neurons"]
    assert record["fingerprint"]["method"] == record["chosen"]["method"] == "selective"
    assert record["chosen"]["page"] == "bench/results/real-drawings.md"

    said = neurons("vqa", shapes["discovery"], "--method", "auto")
    assert "auto takes selective: as for vqa in this run folder" in said
    neurons("vqa", shapes["discovery"], "--method", "selective")
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before, "it is finished, by whichever name"

    # another task of the run has the same method, and one of its own folder another
    alone = items_of(discovery, tmp_path / "alone.json", ("captions", "ocr", "vqa"))
    content = json.loads(alone.read_text())
    for row, item in zip(content["data"], discovery.items, strict=True):
        row["ocr"] = item.model_dump(exclude_none=True)["ocr"]
    alone.write_text(json.dumps(content))
    out = tmp_path / "other"
    said = neurons("ocr", alone, "--method", "auto")
    assert "ocr: auto takes rounds: no other task asks about the items of ocr" in said
    assert "--fresh" not in neurons("vqa", shapes["discovery"], "--method", "auto")
    stages = json.loads((out / "run.json").read_text())["stages"]
    assert {stages[name]["fingerprint"]["method"] for name in ("ocr/neurons", "vqa/neurons")} == {"rounds"}
    said = neurons("vqa", shapes["discovery"], "--method", "auto", "--fresh")
    assert "auto takes selective" in said, "chosen anew"


def test_named_heads_are_what_the_paper_guides_by(
    model_folders: dict[str, Path], shapes: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    common = ("--model", model_folders["llava"], "--task", "retrieval", "--data", shapes["discovery"])
    common = (*common, "--candidates", 3, "--out", tmp_path / "run")
    assert call("heads", *common, "--top-k", 12, "--anyway") == 0
    heads = tmp_path / "run/retrieval/heads.json"
    assert call("neurons", *common, "--ratio", 0.05, "--method", "auto", "--heads", heads) == 0
    assert "auto takes hones: critical heads are named" in " ".join(capsys.readouterr().err.split())
    chosen = (tmp_path / "run/retrieval/neuron_importance.npy").read_bytes()
    assert call("neurons", *common, "--ratio", 0.05, "--fresh") == 0
    assert (tmp_path / "run/retrieval/neuron_importance.npy").read_bytes() == chosen
    rows = json.loads((tmp_path / "run/retrieval/neurons.json").read_text())
    record = json.loads((tmp_path / "run/run.json").read_text())["stages"]["retrieval/neurons"]
    assert "method" not in rows[0] and "chosen" not in record, "who does not ask for auto has what there was"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--method", "magic"), "no method 'magic'; expected auto or one of hones,"),
        (("--method", "auto", "--rounds", "3"), "--rounds 3 with the method auto; expected the method rounds or"),
        (("--method", "auto", "--per-item"), "--per-item with --method auto; expected one of them"),
    ],
)
def test_what_does_not_go_together(options: tuple[str, ...], line: str, tmp_path: Path, capsys: Any) -> None:
    given = ("--model", "tiny-llava", "--task", "vqa", "--data", "x.json", "--out", tmp_path / "run")
    assert call("neurons", *given, *options) == 2
    assert line in " ".join(capsys.readouterr().err.split())


@pytest.fixture
def config(model_folders: dict[str, Path], shapes: dict[str, Path], tmp_path: Path) -> Path:
    content = {
        "model": str(model_folders["llava"]),
        "out": "run",
        "data": {name: str(file) for name, file in shapes.items()},
        "tasks": ["retrieval"],
        "method": "auto",
        "candidates": 3,
        "ratio": 0.1,
        "draws": 1,
        "max_new_tokens": 2,
        "limit": {"dev": 2, "test": 2},
        "steering": {"epochs": 1},
        "anyway": True,
    }
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def test_a_run_with_auto_goes_on_with_what_it_chose(config: Path, capsys: Any) -> None:
    assert call("run", config) == 0
    assert "retrieval: auto takes selective: the items are" in " ".join(capsys.readouterr().err.split())
    out = config.parent / "run"
    record = json.loads((out / "run.json").read_text())["stages"]["retrieval/neurons"]
    assert record["fingerprint"]["method"] == "selective" and record["chosen"]["method"] == "selective"
    found = (out / "retrieval/neurons.json").read_bytes()
    written = {file: file.stat().st_mtime_ns for file in out.rglob("*.json") if file.name != "run.json"}

    assert call("run", config) == 0
    assert "auto takes selective: as for retrieval in this run folder" in " ".join(capsys.readouterr().err.split())
    assert {file: file.stat().st_mtime_ns for file in written} == written
    (out / "retrieval/masking.json").unlink()
    assert call("run", config) == 0
    assert (out / "retrieval/masking.json").exists() and (out / "retrieval/neurons.json").read_bytes() == found


def test_a_configuration_names_a_method_or_auto(config: Path) -> None:
    assert read_config(config).method == "auto" and read_config(config, ["method=rounds"]).method == "rounds"
    for change, line in (
        ("method=magic", "method: no method 'magic'; expected auto or one of hones"),
        ("positive_part=item", "positive_part: item with method: auto; expected one of them"),
    ):
        with pytest.raises(HonesError, match=line):
            read_config(config, [change])


def planned(config: Path, *changes: str) -> Forecast:
    content = read_config(config, changes).model_dump(exclude_unset=True)
    return plan(make_request(**content, tflops=1.0, memory=8.0))


def test_a_plan_counts_what_auto_would_take(config: Path) -> None:
    def flop(found: Forecast) -> float:
        return next(stage.work.flop for stage in found.stages if stage.name == "neurons")

    auto, by_name = planned(config), planned(config, "method=selective")
    assert flop(auto) == flop(by_name) and auto.total(1) == pytest.approx(by_name.total(1))
    assert any("retrieval: auto takes selective: the items are" in note for note in auto.notes)
    assert not any("auto" in note for note in by_name.notes)
    cost = {name: flop(planned(config, f"method={name}")) for name in ("hones", "hones+", "rounds", "selective")}
    assert cost["selective"] > 2 * cost["rounds"] and cost["rounds"] == pytest.approx(6 * cost["hones+"])
    assert flop(planned(config, "method=oracle")) > flop(planned(config, "method=atp"))
    # so many items that only one gradient is left
    many = planned(config, f"limit.discovery={MOST_GRADIENTS}")
    assert any("auto takes hones+: rounds would take 1,800,000 gradients" in note for note in many.notes)
