"""What a notebook shows of a result: escaped tables, the map of heads, pandas frames where pandas is installed."""

import re
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from hones import HeadResult, HeadScore, HonesError, MaskingResult, RankedNeuron, SteeringResult
from hones.method.analysis.explanation import ExplainedHead, ExplainedNeuron, Explanation
from hones.method.analysis.results import (
    Ablation,
    Analysis,
    Driver,
    ExclusiveGroup,
    HeadRef,
    LensRow,
    NeuronCard,
    Overlap,
    TaskSets,
    Token,
)
from hones.method.found import RankedNeurons
from hones.method.neurons import select_neurons
from hones.rivals.results import Comparison, Curve, MethodResult
from hones.stats import Interval
from hones.tabular import Column, Table, Tabular, heat_map_html, table_html

HOSTILE = "<script>alert('x')</script>\"&"
X = Interval(0.25, 0.125, 0.5)
TOKENS = (Token(HOSTILE, 1.0),)
HEADS = tuple(HeadScore(n // 2, n % 2, Interval(0.5 - n / 4, 0.0, 1.0), 1.0, 0.5, 8) for n in range(4))
METHOD = MethodResult(HOSTILE, 3, X, X, None, None, None, 0.5, 1.0, (1, 2))
CARD = NeuronCard(
    "vqa",
    1,
    0,
    3,
    0.5,
    ("vqa", "ocr"),
    TOKENS,
    TOKENS,
    (HeadRef(0, 1, 1.0),),
    (Driver(HOSTILE, "vqa", 1.0, "", "", ""),),
)
RESULTS: list[Tabular] = [
    HeadResult("accuracy", X, 8, HEADS, 2),
    MaskingResult("accuracy", 8, 3, X, X, X, None, X, X, (0.5,)),
    SteeringResult("accuracy", 8, X, X, X),
    Comparison("vqa", "accuracy", 8, 0.01, X, (METHOD,), (Curve("ap", (0.1, 0.2), (1, 2), (X, X)),)),
    Analysis(
        "model",
        2,
        2,
        4,
        (TaskSets("vqa", "accuracy", (HeadRef(0, 1, 0.5),), (1, 2)),),
        (Overlap("vqa", "ocr", 1, 3),),
        (Overlap("vqa", "ocr", 0, 3),),
        (ExclusiveGroup(("vqa", "ocr"), 3, (1, 2)),),
        (Ablation(("vqa", "ocr"), "vqa", X, X, X, None, X, X),),
        (LensRow("vqa", HOSTILE, HOSTILE, HOSTILE, "p.jpg", ("vqa",), 1, TOKENS),),
        (CARD,),
    ),
    Explanation(
        "model",
        HOSTILE,
        HOSTILE,
        HOSTILE,
        0.5,
        2,
        2,
        tuple(ExplainedHead(n // 2, n % 2, 0.5 - n / 4, 0.1) for n in range(4)),
        2,
        (ExplainedNeuron(0, 1, 0.5, 0.25, (HeadRef(0, 1, 1.0),), TOKENS, TOKENS),),
    ),
    RankedNeurons([RankedNeuron(1, 0, 3, 0.5)]),
]


class Frame:
    """What pandas.DataFrame is asked for."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows


@pytest.fixture
def pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("pandas")
    module.DataFrame = Frame
    monkeypatch.setitem(sys.modules, "pandas", module)


@pytest.mark.parametrize("result", RESULTS, ids=lambda r: type(r).__name__)
def test_every_result_shows_all_its_tables_and_text_is_inert(result: Tabular, pandas: None) -> None:
    html = result._repr_html_()
    assert "<script" not in html and html.count("<caption>") >= len(result.tables()) > 0
    assert html.count("<table") == html.count("</table>")
    for table in result.tables():
        frame = result.to_pandas(table.name)
        assert len(frame.rows) == len(table.rows)
        for row in frame.rows:
            assert all(value is None or isinstance(value, str | int | float | tuple) for value in row.values())
        for column in table.columns:
            assert f"<th>{column.name}</th>" in html


def test_an_interval_is_three_columns_of_a_frame_and_one_cell_of_a_page(pandas: None) -> None:
    result = RESULTS[1]
    (row,) = result.to_pandas().rows
    assert (row["masked"], row["masked_low"], row["masked_high"]) == (0.25, 0.125, 0.5)
    assert row["relative_drop"] is None
    assert "<td>0.25 [0.125, 0.5]</td>" in result._repr_html_()


def test_a_change_keeps_its_sign_on_a_page() -> None:
    """A head that changes nothing is at no floor."""
    columns = (Column("score", form="+.3f", kind="interval"), Column("level", kind="interval"))
    row = {"score": Interval(0.0, 0.0, 0.0), "level": Interval(0.0, 0.0, 0.0)}
    html = table_html(Table("heads", "", columns, [row, {"score": Interval(0.25, 0.125, 0.5)}]))
    assert "<td>+0 [no change]</td><td>0 [at floor]</td>" in html and "<td>+0.25 [+0.125, +0.5]</td>" in html


def test_the_first_table_is_the_default_and_others_have_names(pandas: None) -> None:
    comparison = RESULTS[3]
    assert [row["method"] for row in comparison.to_pandas().rows] == [HOSTILE]
    assert [row["neurons"] for row in comparison.to_pandas("curves").rows] == [1, 2]
    with pytest.raises(HonesError, match="no table 'x'; expected one of methods, curves"):
        comparison.to_pandas("x")


def test_without_pandas_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(HonesError, match="pandas is not installed; pip install pandas"):
        RESULTS[0].to_pandas()


def test_long_tables_say_how_long_they_are() -> None:
    html = table_html(Table("numbers", "", (Column("n"),), [{"n": n} for n in range(100)]), most=7)
    assert "numbers, the first 7 of 100" in html and html.count("<tr>") == 1 + 7


def test_the_map_of_heads_colours_every_cell_and_marks_the_critical_ones() -> None:
    html = heat_map_html(np.array([[1.0, 0.0], [-0.5, 0.5]]), [(0, 0), (1, 1)], "drop <of>")
    colours = re.findall(r"background:(rgb\(\d+,\d+,\d+\))", html)
    assert colours == ["rgb(213,94,0)", "rgb(255,255,255)", "rgb(128,184,216)", "rgb(234,174,128)"]
    assert html.count("●</td>") == 2 and "drop &lt;of>" not in html and "drop &lt;of&gt;" in html
    assert 'title="layer 1, head 0: -0.5"' in html
    assert "●" in RESULTS[0]._repr_html_() and "●" in RESULTS[5]._repr_html_()


def test_selected_neurons_are_a_list_that_a_notebook_shows() -> None:
    found = select_neurons(np.array([[0.0, 2.0], [1.0, 0.0]], dtype=np.float32), 0.5)
    assert found == [RankedNeuron(1, 0, 1, 2.0), RankedNeuron(2, 1, 0, 1.0)]
    assert "<td>2</td>" in found._repr_html_()
