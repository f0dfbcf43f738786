"""Commands, options, defaults, bounds and help are frozen: tests/golden/help.json (`make golden`)."""

from typing import Any

import pytest
from commands_shown import commands_shown
from golden_runs import read_golden

FROZEN: dict[str, dict[str, Any]] = read_golden("help")


@pytest.fixture(scope="module")
def shown() -> dict[str, dict[str, Any]]:
    return commands_shown()


def test_the_commands_are_those_there_were(shown: dict[str, dict[str, Any]]) -> None:
    assert set(shown) == set(FROZEN)
    assert {"hones heads", "hones data shapes", "hones benchmark planted"} <= set(FROZEN), "subcommands too"


@pytest.mark.parametrize("command", sorted(FROZEN))
def test_a_command_takes_and_says_what_it_did(command: str, shown: dict[str, dict[str, Any]]) -> None:
    old, new = FROZEN[command], shown[command]
    assert set(new["parameters"]) == set(old["parameters"])
    for name, parameter in old["parameters"].items():
        assert new["parameters"][name] == parameter, name
    assert {**new, "parameters": None} == {**old, "parameters": None}


def test_what_is_frozen_is_what_help_shows() -> None:
    """Bounds, defaults, flags with two names, arguments and panels are there, not only names."""
    heads = FROZEN["hones heads"]
    assert heads["rich_help_panel"] == "Find" and heads["help"].startswith("Step 1: score every attention head")
    assert heads["parameters"]["--limit"]["min"] == 1 and heads["parameters"]["--limit"]["type"] == "int"
    assert heads["parameters"]["--model"]["required"] and heads["parameters"]["--candidates"]["default"] == 50
    assert heads["parameters"]["--fresh/--resume"]["is_flag"]
    assert not heads["parameters"]["--ray"]["show_default"], "options that a decorator adds, too"
    assert FROZEN["hones run"]["parameters"]["[config]"]["kind"] == "argument"
