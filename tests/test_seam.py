"""Whatever a library raises is one line with its cause; what is ours, and an interrupt, passes."""

import logging

import pytest

from hones.errors import BadItem, HonesError, NothingGuides, seam


class Panic(BaseException):
    """As libraries in Rust raise it: no Exception."""


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (KeyError("weight_map"), "KeyError: 'weight_map'"),
        (RuntimeError("the file\n  is cut off"), "the file is cut off"),
        (AttributeError("'list' object has no attribute 'keys'"), "AttributeError: 'list' object has no"),
        (AssertionError(), "AssertionError"),
        (MemoryError(), "out of memory"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
        (type("Unheard", (Exception,), {})("of its own kind"), "of its own kind"),
        (Panic("index out of bounds"), "index out of bounds"),
        (ValueError("long " * 999), "long long"),
    ],
)
def test_whatever_a_library_raises_is_one_line(
    raised: BaseException, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hones")
    with pytest.raises(HonesError) as stop, seam("load the model of X", expected="a model", do="take it again"):
        raise raised
    line = str(stop.value)
    assert line.startswith(f"cannot load the model of X ({said}") and line.endswith("; expected a model; take it again")
    assert "\n" not in line and len(line) < 400 and stop.value.__cause__ is raised
    assert "Traceback" in caplog.text


def test_what_an_error_was_raised_from_is_said_too() -> None:
    with pytest.raises(HonesError) as stop, seam("load the dataset X"):
        try:
            raise KeyError("train")
        except KeyError as error:
            raise RuntimeError("An error occurred.") from error
    assert str(stop.value) == "cannot load the dataset X (An error occurred: KeyError: 'train')"


@pytest.mark.parametrize(
    "raised",
    [HonesError("no file"), NothingGuides("no head"), BadItem("no picture"), KeyboardInterrupt(), SystemExit(3)],
)
def test_what_is_ours_passes(raised: BaseException) -> None:
    with pytest.raises(type(raised)) as stop, seam("load the model of X"):
        raise raised
    assert stop.value is raised
