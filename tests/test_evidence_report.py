"""Evidence in the report: charts, tables, words, what is stale, and pages without it."""

import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from run_results import LAYERS, around, make_evidence, make_neurons, make_steering
from test_report import HOSTILE, Balanced, tables_of

from hones.files import digest_of
from hones.method.steering.results import Evidence
from hones.method.steering.settings import Scales
from hones.runs.artifacts import write_neurons, write_result, write_scales
from hones.runs.record import RunFolder
from hones.runs.results import read_results
from hones.runs.stale import stale
from hones.views.report.figures import write_figures
from hones.views.report.page import write_report
from hones.views.report.summary import evidence_sentences


def write_steered(folder: Path, evidence: Evidence) -> None:
    for way in ("hones", "no-kl", "ia3"):
        write_result(folder / evidence.task / "steering" / way / "result.json", make_steering())
    write_result(folder / evidence.task / "steering/evidence.json", evidence)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evidence") / "run"
    write_steered(folder, make_evidence("vqa"))
    write_steered(folder, make_evidence("ocr", others=()))
    return folder


def test_the_page_shows_what_was_measured(run: Path) -> None:
    page = write_report(run).read_text(encoding="utf-8")
    Balanced(page)
    tables, evidence = tables_of(page), make_evidence("vqa")
    assert 'href="#evidence"' in page and page.count('id="evidence"') == 1
    for task in ("vqa", "ocr"):
        for chart in ("gains", "domain", "scales"):
            assert f'id="chart-{chart}-{task}"' in page and f"{chart}-{task}.csv" in tables
    head, *rows = tables["gains-vqa.csv"]
    assert [row[0] for row in rows] == ["hones", "no-kl", "grid-search", "ia3"]
    for row, way in zip(rows, evidence.test.methods, strict=True):
        assert float(row[head.index("gain")]) == way.gain.value
        assert float(row[head.index("gain low")]) == way.gain.low and row[head.index("seeds")].count(" ") == 1
        ahead = row[head.index("HONES ahead by")]
        assert ahead == ("" if way.hones_advantage is None else repr(way.hones_advantage.value))
    changes = [(row[0], row[1], float(row[10])) for row in tables["elsewhere.csv"][1:]]
    assert changes == [("vqa", e.task, e.change.value) for e in evidence.elsewhere]
    scales = tables["scales-vqa.csv"]
    assert len(scales) == 1 + 3 * (1 + LAYERS) and float(scales[1][-1]) == 10 and float(scales[1][4]) == -0.3
    assert [row[:2] for row in tables["steering.csv"][1:]] == [["vqa", "hones"], ["ocr", "hones"]]
    names = {f.name for f in write_figures(run, run.parent / "figures", form="svg")}
    assert {"gains-vqa.svg", "domain-ocr.svg", "scales-vqa.svg", "elsewhere.svg"} <= names


def test_words_only_where_an_interval_supports_them() -> None:
    evidence = make_evidence("vqa")
    told = " ".join(evidence_sentences(evidence))
    for part in (
        "Steering (HONES, mean over 2 seeds) raises vqa on 200 items from 0.70 to 0.75 (gain 0.05 [0.03, 0.07])",
        "it is ahead of no-kl, it is behind ia3, with 1 other way the interval of the difference includes zero",
        "Out of domain, it makes no change that the interval supports to vqa on 90 items",
        "The scales of vqa lower caption (change −0.05 [−0.07, −0.03]) and make no change that the interval",
        "supports to retrieval.",
    ):
        assert part in told, part
    unsure = tuple(
        replace(m, gain=around(0.01), hones_advantage=m.hones_advantage and around(0.01)) for m in evidence.test.methods
    )
    tested = replace(evidence.test, methods=unsure)
    told = " ".join(evidence_sentences(replace(evidence, test=tested, out_of_domain=None)))
    assert not any(word in told for word in ("raises", "lowers", "ahead", "behind", "Out of domain"))
    worse = (replace(evidence.test.methods[0], gain=around(-0.2)),)
    told = [*evidence_sentences(replace(evidence, test=replace(evidence.test, methods=worse), elsewhere=()))]
    assert "lowers vqa" in told[0] and len(told) == 2


def test_a_page_without_evidence_says_nothing_of_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_result(run / "vqa/steering/hones/result.json", make_steering())
    page = write_report(run).read_text(encoding="utf-8")
    assert "#evidence" not in page and "Evidence" not in page
    assert "Steering (hones)" in page


@pytest.mark.parametrize("text", HOSTILE)
def test_names_of_files_are_only_text(tmp_path: Path, text: str) -> None:
    write_steered(tmp_path, make_evidence("vqa", text=text.replace("\ud800", "")))
    page = write_report(tmp_path).read_text(encoding="utf-8")
    Balanced(page)
    assert page.count("<script") == 1 and "document.title='ran'</script>" not in page


def test_evidence_of_other_scales_is_named(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    write_neurons(folder / "vqa", np.zeros((LAYERS, 100), dtype=np.float32), make_neurons(random.Random(0)))
    scales = folder / "vqa/steering/no-kl/scales.json"
    write_scales(scales, Scales({(0, 1): 0.5}))
    record = RunFolder(folder)
    used = {"neurons": digest_of(folder / "vqa/neurons.json"), "scales": {"no-kl/scales.json": digest_of(scales)}}
    record.finish("vqa/evidence", used, {}, [folder / "vqa/steering/evidence.json"])
    record.finish("vqa/steer", {}, {}, [folder / "vqa/steering/hones/result.json"])
    mine = [line for line in stale(read_results(folder)) if line.startswith("vqa")]
    assert mine == ["vqa/neurons.json: run.json has no finished vqa/neurons"]
    write_scales(scales, Scales({(0, 1): 0.25}))
    write_steered(folder, make_evidence("vqa", others=()))
    lines = "\n".join(stale(read_results(folder)))
    assert "vqa/evidence: not found from the present vqa/steering/no-kl/scales.json" in lines
    assert "vqa/steering/evidence.json: changed since vqa/evidence wrote it" in lines
    assert "ocr/steering/evidence.json: run.json has no finished ocr/evidence" in lines
