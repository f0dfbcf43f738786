"""The report of a run and its figures: values, escapes, missing parts, and the page in a real browser."""

import base64
import csv
import hashlib
import html
import io
import json
import random
import re
import shutil
import subprocess
import warnings
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from browser import BROWSER, needs_browser
from PIL import Image
from run_results import (
    HEADS,
    LAYERS,
    METHODS,
    around,
    make_analysis,
    make_comparison,
    make_explanation,
    make_heads,
    make_masking,
    make_neurons,
    make_steering,
    write_analysis,
)
from test_cli import call

from hones.runs.artifacts import write_heads, write_neurons, write_result
from hones.views.report.explain import render_explanation
from hones.views.report.figures import write_figures
from hones.views.report.page import write_report
from hones.views.report.pictures import thumbnail
from hones.views.sheet import Sheet
from hones.views.text import clean, number, slug, token_text

VOID = {"meta", "link", "img", "br"}
HOSTILE = (
    "<script>document.title='ran'</script>",
    "\"'><img src=x onerror=\"document.title='ran'\">",
    "</script></style></title></textarea></svg><svg onload=\"document.title='ran'\">",
    "]]><!-- --><![CDATA[",
    "{{ 7 * 7 }} {% raw %}",
    '=HYPERLINK("http://evil.example")',
    "$\\frac{1}{",
    "شجرة ‮reversed‬",
    "👩‍👩‍👧 \U0001f525",
    "\x00\x07\x1b[31m\x7f\x85 \ud800",
    "x" * 5000,
)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two tasks with everything in it."""
    folder = tmp_path_factory.mktemp("report") / "run"
    write_run(folder, ("vqa", "ocr"))
    write_analysis(folder, make_analysis(("vqa", "ocr")))
    return folder


def write_run(folder: Path, tasks: tuple[str, ...]) -> None:
    rng = random.Random(0)
    for task in tasks:
        write_heads(folder / task, make_heads(rng), LAYERS, HEADS)
        write_neurons(folder / task, np.zeros((LAYERS, 100), dtype=np.float32), make_neurons(rng))
        write_result(folder / task / "masking.json", make_masking(around(0.22, 0.07), around(0.2, 0.05)))
        write_result(folder / task / "comparison.json", make_comparison(task))
        write_result(folder / task / "steering/hones/result.json", make_steering())
    used = {"items": ["1", "2"], "left_out": [{"id": "9", "reason": "no picture 9.png"}]}
    stage = {"fingerprint": {"model": "tiny-llava", "data": "ab" * 32, "top_k": 5}, "seconds": 2.5, "device": "cpu"}
    stage |= {"finished": "2026-01-01T00:00:00+00:00", "versions": {"torch": "2.6"}, "discovery": used}
    record = {"stages": {f"{tasks[0]}/heads": stage}}
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One task, masked, with an analysis."""
    folder = tmp_path_factory.mktemp("small") / "run"
    rng = random.Random(0)
    write_heads(folder / "vqa", make_heads(rng), LAYERS, HEADS)
    write_neurons(folder / "vqa", np.zeros((LAYERS, 100), dtype=np.float32), make_neurons(rng))
    write_result(folder / "vqa/masking.json", make_masking(around(0.22, 0.07), around(0.2, 0.05)))
    write_analysis(folder, make_analysis(("vqa",)))
    return folder


@pytest.fixture(scope="session")
def page(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


class Balanced(HTMLParser):
    """Collects what a page consists of; fails where tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str, cls: str = "") -> list[dict[str, str | None]]:
        return [a for t, a in self.tags if t == tag and cls in [*(a.get("class") or "").split(), ""]]


def tables_of(page: str) -> dict[str, list[list[str]]]:
    """Every CSV in the page, by file name."""
    found = {}
    for link in Balanced(page).all("a", "csv"):
        kind, _, content = (link["href"] or "").partition(",")
        assert kind == "data:text/csv;charset=utf-8"
        found[link["download"]] = [*csv.reader(io.StringIO(unquote(content)))]
    return found


def test_the_page_nests_and_every_chart_has_title_caption_csv_and_table(page: str) -> None:
    parsed = Balanced(page)
    charts = re.findall(r"<figure class=\"box.*?</figure>", page, re.DOTALL)
    assert len(charts) == 2 + 1 + 1 + 2 * 2 + 2 + 6 + 1  # heads, layers, masking, methods, groups, cards, steering
    for chart in charts:
        assert all(part in chart for part in ("<svg", "<h3>", "<figcaption>", "<table>", 'class="csv"', 'class="mark"'))
        assert 'scope="col"' in chart and 'scope="row"' in chart and "<caption>" in chart
        assert chart.count('role="img"') == chart.count("<title>") == chart.count('class="mark"')
    ids = [a["id"] for _, a in parsed.tags if "id" in a]
    assert len(set(ids)) == len(ids), "ids are unique"
    assert {a["href"] for a in parsed.all("a") if (a["href"] or "").startswith("#")} <= {f"#{i}" for i in ids}
    for reference in re.findall(r"url\(#([^)]+)\)", page):
        assert reference in ids
    levels = [int(tag[1]) for tag, _ in parsed.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and all(b - a <= 1 for a, b in pairwise(levels)) and levels.count(1) == 1


def test_nothing_is_fetched_and_only_the_named_script_may_run(page: str) -> None:
    parsed = Balanced(page)
    for _, attributes in parsed.tags:
        for key in ("src", "href", "xlink:href"):
            assert re.match(r"#|data:", attributes.get(key) or "#"), attributes
    assert "@import" not in page and not re.search(r"url\((?!#)", page)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(a["content"] for a in parsed.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and f"script-src 'sha256-{digest}'" in policy and policy.startswith("default-src 'none'")


def test_values_in_the_page_are_those_of_the_artifacts(run: Path, page: str) -> None:
    tables = tables_of(page)
    heads = json.loads((run / "vqa/heads.json").read_text())["all_heads"]
    rows = tables["heads-vqa.csv"][1:]
    assert [[float(x) for x in row[:5]] for row in rows] == [
        [h[k] for k in ("layer", "head", "score", "score_low", "score_high")] for h in heads
    ]
    assert [row[-1] for row in rows] == ["yes"] * 5 + ["no"] * (LAYERS * HEADS - 5)
    best = heads[0]
    low, value, high = (number(best[k]) for k in ("score_low", "score", "score_high"))
    label = f"layer {best['layer']}, head {best['head']}: drop {value} [{low}, {high}], critical"
    assert f'aria-label="{label}"' in page
    comparison = make_comparison("vqa")
    by_name = {m.method: m for m in comparison.methods}
    head, *rows = tables["comparison-vqa.csv"]
    assert {row[0] for row in rows} == set(METHODS)
    for row in (dict(zip(head, row, strict=True)) for row in rows):
        m = by_name[row["method"]]
        shown = [float(row[name]) for name in ("neurons", "masked", "drop")]
        assert shown == [m.neurons, m.masked.value, m.absolute_drop.value]
        assert row["p"] == ("" if m.p_value is None else repr(m.p_value))
    assert len(tables["budgets-vqa.csv"]) == 1 + sum(len(c.ratios) for c in comparison.curves)
    neurons = json.loads((run / "ocr/neurons.json").read_text())
    counts = [int(row[2]) for row in tables["layers.csv"][1:]]
    assert counts == [sum(n["layer"] == layer for n in neurons) for layer in range(LAYERS)]
    analysis = make_analysis(("vqa", "ocr"))
    assert {(r[0], int(r[1])) for r in tables["groups.csv"][1:]} == {
        (" + ".join(g.tasks), g.neurons) for g in analysis.groups
    }
    head, *rows = tables["ablation.csv"]
    drops = {(r[0], r[1]): float(r[head.index("drop")]) for r in rows}
    assert drops == {(" + ".join(a.group), a.task): a.drop.value for a in analysis.ablations}
    steering = dict(zip(*tables["steering.csv"][:2], strict=True))
    assert [float(steering[name]) for name in ("items", "base", "steered", "gain")] == [200, 0.7, 0.74, 0.04]
    assert [row[1:] for row in tables["left-out.csv"][1:]] == [["9", "no picture 9.png"]]


def test_missing_parts_are_named_with_their_command(tmp_path: Path) -> None:
    write_heads(tmp_path / "vqa", make_heads(random.Random(1)), LAYERS, HEADS)
    page = write_report(tmp_path, tmp_path / "out/page.html").read_text(encoding="utf-8")
    for what, command in (
        *(("neurons", "hones neurons"), ("masking", "hones mask"), ("steering", "hones steer")),
        *(("comparison", "hones compare"), ("analysis", "hones analyze"), ("neuron cards", "hones analyze")),
    ):
        assert re.search(rf"No {what}[^<]*: <code>{command}", page), what
    assert "No run.json" in page and "No head scores" not in page
    Balanced(page)
    assert sorted(f.name for f in write_figures(tmp_path, form="svg")) == ["heads-vqa.svg"]


@pytest.mark.parametrize("command", ["report", "figures"])
def test_no_run_or_a_damaged_one_is_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert call(command, tmp_path / "absent") == 2
    assert "no run folder" in capsys.readouterr().err and not (tmp_path / "absent").exists()
    (tmp_path / "empty").mkdir()
    assert call(command, tmp_path / "empty") == 2 and "holds no results" in capsys.readouterr().err
    shutil.copytree(run, tmp_path / "damaged")
    (tmp_path / "damaged/ocr/comparison.json").write_text('{"task": 3}')
    assert call(command, tmp_path / "damaged") == 2
    assert "comparison.json: " in capsys.readouterr().err


def test_the_commands_print_what_they_write(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = small_run
    assert call("report", run, "--to", tmp_path / "a.html") == 0
    assert capsys.readouterr().out.strip() == f"report: {tmp_path / 'a.html'}"
    assert call("figures", run, "--to", tmp_path / "f", "--format", "pdf") == 0
    written = capsys.readouterr().out.split()[1::2]
    assert sorted(written) == sorted(map(str, (tmp_path / "f").iterdir())) and {Path(w).suffix for w in written} == {
        ".pdf"
    }
    assert call("figures", run, "--format", "png") == 2
    assert "--format png; expected pdf, svg or both" in capsys.readouterr().err


def test_page_and_figures_are_the_same_every_time(small_run: Path, tmp_path: Path) -> None:
    pages = [write_report(small_run, tmp_path / f"{i}.html").read_bytes() for i in range(2)]
    assert pages[0] == pages[1]
    first, second = (write_figures(small_run, tmp_path / name) for name in "ab")
    names = ("layers", "groups-drops", "masking", "heads-vqa")
    assert {f.name for f in first} == {f"{name}.{kind}" for name in names for kind in ("pdf", "svg")}
    for a, b in zip(first, second, strict=True):
        content = a.read_bytes()
        assert content == b.read_bytes(), a.name
        if a.suffix == ".pdf":
            assert content.startswith(b"%PDF") and b"/Type3" not in content and b"/FontFile2" in content
        else:
            ElementTree.fromstring(content)


def test_text_is_made_visible() -> None:
    assert clean("a\x00\x1b\u202eb\ud800") == "a␀␛⟨U+202E⟩b�"
    assert clean("👩‍👧 é\n") == "👩‍👧 é\n"
    assert [token_text(t) for t in ("▁cat", "Ġdog", "\n", "")] == ["␣cat", "␣dog", "↵", "∅"]
    assert [number(x) for x in (-0.0004, -1.5, None, float("nan"))] == ["0.000", "−1.500", "–", "–"]
    assert slug("vqa") == "vqa" and slug("a/b") != slug("a b") and re.fullmatch(r"[\w-]+", slug(HOSTILE[2]))


def test_csv_is_no_formula_and_keeps_all_digits() -> None:
    table = Sheet("t", "T", ("name", "value"), (("=1+1", -0.1), ("@x", None), ('a,"b', 1 / 3), ("-x", 7)))
    rows = [*csv.reader(io.StringIO(table.csv()))]
    assert rows[1:] == [["'=1+1", "-0.1"], ["'@x", ""], ['a,"b', repr(1 / 3)], ["'-x", "7"]]


def test_pictures_are_encoded_anew_or_named(tmp_path: Path) -> None:
    inside = tmp_path / "analysis"
    inside.mkdir()
    Image.new("RGB", (900, 30)).save(tmp_path / "secret.png")
    noisy = Image.new("RGB", (900, 30), "red")
    noisy.save(inside / "a.png", pnginfo=None)
    with (inside / "a.png").open("ab") as file:
        file.write(b"<script>")
    thumb = thumbnail("a.png", inside)
    content = base64.b64decode(thumb.address.partition(",")[2])
    assert (
        Image.open(io.BytesIO(content)).size == (thumb.width, thumb.height) == (240, 8) and b"<script>" not in content
    )
    (inside / "b.png").write_bytes(b"no picture")
    for name, problem in (
        *(("b.png", "cannot read picture"), ("c.png", "no picture"), ("../secret.png", "outside")),
        *((str(tmp_path / "secret.png"), "outside"), ("\x00", "no picture"), ("n" * 5000, "cannot read")),
    ):
        thumb = thumbnail(name, inside)
        assert thumb.address == "" and problem in thumb.problem, name


@pytest.fixture(scope="session")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hostile text wherever a model, a data file or a file name speaks."""
    folder = tmp_path_factory.mktemp("hostile") / "<b>run"
    name = "<img src=x onerror=alert(1)>"
    write_run(folder, ("vqa", name))
    everything = "\n".join(HOSTILE)
    analysis = make_analysis(("vqa", name), everything.replace("\ud800", ""))
    write_analysis(folder, analysis)
    text = (folder / "analysis/analysis.json").read_text(encoding="utf-8")
    marks = json.loads(text)
    for card, text in zip(marks["cards"], HOSTILE, strict=False):
        card["promotes"] = [{"text": t, "weight": 1.0} for t in HOSTILE]
        card["drivers"][1]["picture"] = text
    (folder / "analysis/analysis.json").write_text(json.dumps(marks), encoding="utf-8")
    record = json.loads((folder / "run.json").read_text())
    stage = record["stages"]["vqa/heads"]
    stage["fingerprint"]["model"] = stage["device"] = everything
    stage["discovery"]["left_out"] = [{"id": t, "reason": t} for t in HOSTILE]
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    comparison = json.loads((folder / "vqa/comparison.json").read_text())
    for method, text in zip(comparison["methods"], HOSTILE, strict=False):
        method["method"] = text[:60]
    (folder / "vqa/comparison.json").write_text(json.dumps(comparison), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def hostile(hostile_run: Path) -> str:
    return write_report(hostile_run).read_text(encoding="utf-8")


def test_hostile_text_stays_text(hostile_run: Path, hostile: str, page: str) -> None:
    parsed = Balanced(hostile)
    assert {tag for tag, _ in parsed.tags} <= {tag for tag, _ in Balanced(page).tags}
    assert not any(key.startswith("on") for _, attributes in parsed.tags for key in attributes)
    assert len(parsed.all("script")) == 1 and "<script>document" not in hostile
    for text in HOSTILE:
        assert html.escape(clean(text), quote=False).replace("\n", "") in hostile.replace("&#34;", '"').replace(
            "&#39;", "'"
        )
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f‮]", hostile)
    left_out = tables_of(hostile)["left-out.csv"]
    assert [row[1].lstrip("'") for row in left_out[1:]] == [clean(t) for t in HOSTILE]
    assert any(row[1].startswith("'=HYPERLINK") for row in left_out)
    for svg in re.findall(r"<svg.*?</svg>", hostile, re.DOTALL):
        ElementTree.fromstring(svg)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        for file in write_figures(hostile_run, form="pdf"):
            assert re.fullmatch(r"[\w-]+\.(pdf|svg)", file.name)


def test_an_explanation_is_a_page(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), "green").save(tmp_path / "a.png")
    page = render_explanation(make_explanation(), tmp_path / "a.png")
    parsed = Balanced(page)
    assert len(parsed.all("svg", "chart")) == 2 and len(parsed.all("img")) == 1
    explanation = make_explanation()
    rows = tables_of(page)["heads.csv"][1:]
    assert [float(r[2]) for r in rows] == [h.log_probability_drop for h in explanation.all_heads]
    assert [int(r[1]) for r in tables_of(page)["neurons.csv"][1:]] == [n.neuron for n in explanation.neurons]
    assert Balanced(render_explanation(make_explanation(), Image.new("RGB", (9, 9)))).all("img")
    hostile = render_explanation(make_explanation("\n".join(HOSTILE), HOSTILE[2]), tmp_path / "absent.png")
    assert {tag for tag, _ in Balanced(hostile).tags} <= {tag for tag, _ in parsed.tags} | {"p", "details", "summary"}
    assert "no picture" in hostile


def browse(file: Path, tmp_path: Path, *options: str) -> tuple[str, str]:
    """The page's document once its script ran, and what the browser logged."""
    assert BROWSER is not None
    profile = tmp_path / "profile"
    fixed = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--v=0",
        f"--user-data-dir={profile}",
    )
    command = [BROWSER, *fixed, "--virtual-time-budget=3000", *options, file.resolve().as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, done.stderr


@needs_browser
@pytest.mark.parametrize("which", ["page", "hostile"])
def test_a_browser_shows_every_chart_and_runs_nothing_else(
    which: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "page.html").write_text(request.getfixturevalue(which), encoding="utf-8")
    document, log = browse(tmp_path / "page.html", tmp_path, "--dump-dom", "--host-resolver-rules=MAP * ~NOTFOUND")
    assert "CONSOLE" not in log, log
    assert document.count('<svg class="chart') + document.count('class="chart') >= 17
    assert "<title>ran<" not in document and document.count("Point at a mark") == 1
    assert re.search(r"<button class=\"theme\" type=\"button\">(Dark|Light)<", document), "the page's own script ran"


@needs_browser
def test_keys_move_between_marks_and_nothing_scrolls_sideways_on_a_phone(page: str, tmp_path: Path) -> None:
    probe = """
    const chart = document.querySelector("svg.chart");
    const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
    const said = () => document.activeElement.getAttribute("aria-label").split(":")[0];
    chart.focus(); press("ArrowRight"); const first = said();
    press("ArrowRight"); const right = said(); press("ArrowDown"); const down = said(); press("ArrowLeft");
    const readout = chart.closest("figure").querySelector(".readout").textContent.split(":")[0];
    const root = document.documentElement;
    const outside = [...document.body.querySelectorAll("*")].filter((e) => !e.closest(".scroll, .skip")).filter(
      (e) => e.getBoundingClientRect().right > root.clientWidth + 0.5).map((e) => e.tagName + "." + e.className);
    const wide = root.scrollWidth - root.clientWidth;
    const button = document.querySelector("button.theme");
    const paper = () => getComputedStyle(document.body).backgroundColor;
    const light = paper(); button.click();
    const texts = [...document.querySelectorAll("svg.chart text")].filter((e) => e.getClientRects().length);
    const size = (e) => parseFloat(getComputedStyle(e).fontSize) * e.ownerSVGElement.getScreenCTM().a;
    const small = texts.filter((e) => size(e) < 9.9).length;
    const moves = [first, right, down, said()];
    const themes = light !== paper();
    parent.postMessage({moves, readout, wide, outside, small, texts: texts.length > 20, themes}, "*");
    """
    found = probed(page, probe, 390, tmp_path)
    assert found == {
        "moves": ["layer 0, head 0", "layer 0, head 1", "layer 1, head 1", "layer 1, head 0"],
        "readout": "layer 1, head 0",
        "wide": 0,
        "outside": [],
        "small": 0,
        "texts": True,
        "themes": True,
    }


@needs_browser
@pytest.mark.parametrize(("width", "stays"), [(1400, True), (400, False)])
def test_the_navigation_stays_where_there_is_room_and_covers_nothing(
    width: int, stays: bool, page: str, tmp_path: Path
) -> None:
    probe = """
    scrollTo({top: 3000, behavior: "instant"});
    const nav = document.querySelector("nav").getBoundingClientRect();
    const main = document.querySelector("main").getBoundingClientRect();
    const covers = nav.right > main.left && nav.bottom > main.top;
    parent.postMessage({scrolled: scrollY, stays: nav.top >= 0 && nav.bottom <= innerHeight, covers}, "*");
    """
    assert probed(page, probe, width, tmp_path) == {"scrolled": 3000, "stays": stays, "covers": False}


def probed(page: str, probe: str, width: int, tmp_path: Path) -> dict[str, Any]:
    """What a probe finds in the page, so wide; its hash is named by the policy of this copy."""
    digest = base64.b64encode(hashlib.sha256(probe.encode()).digest()).decode()
    text = page.replace("script-src ", f"script-src 'sha256-{digest}' ").replace(
        "</body>", f"<script>{probe}</script></body>"
    )
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    frame = tmp_path / "phone.html"
    receive = "onmessage = (event) => { document.title = JSON.stringify(event.data); }"
    frame.write_text(f'<script>{receive}</script><iframe src="page.html" width="{width}" height="800"></iframe>')
    document, _ = browse(frame, tmp_path, "--dump-dom")
    return json.loads(html.unescape(re.findall(r"<title>({.*?})</title>", document)[0]))


@needs_browser
def test_the_policy_stops_a_script_even_if_escaping_failed(page: str, tmp_path: Path) -> None:
    wounded = "".join(f"<div>{text}</div>" for text in HOSTILE[:2])
    file = tmp_path / "page.html"
    file.write_text(page.replace("</main>", f"{wounded}</main>"), encoding="utf-8")
    document, log = browse(file, tmp_path, "--dump-dom")
    assert "<title>ran<" not in document and "<script>document.title" in document
    assert "violates the following Content Security Policy directive" in log
