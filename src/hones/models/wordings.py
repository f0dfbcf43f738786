"""The words around a prompt that are no model's own: those of models without a chat template, and what a user gives.

A user gives a file with a Jinja template, as vLLM's and transformers' servers take it, or a name of `BY_NAME`.
"""

import json
from pathlib import Path
from typing import Any

from hones.errors import HonesError
from hones.files import read_text

LLAVA = "LLaVA-1.5's wording"
PALIGEMMA = "PaliGemma's wording"
NONE = "none: the prompt as it is"
WORDINGS = {LLAVA: "USER: {image}{prompt}\nASSISTANT:", PALIGEMMA: "{image}{start}{prompt}\n", NONE: "{prompt}"}
BY_NAME = {"llava-1.5": LLAVA}

_DO = "--chat-template takes a file with a Jinja template, or a name"


def default_of(given: Any) -> str | None:
    """Of several templates by name the default; None for what is no text."""
    text = given.get("default") if isinstance(given, dict) else given
    return text if isinstance(text, str) else None


def given_text(given: str) -> str | None:
    """The Jinja template of a file; None for a name of `BY_NAME`.

    A JSON file (chat_template.json, tokenizer_config.json) holds it as its chat_template.

    Raises:
        HonesError: no such name or file, or one without a template.
    """
    if given in BY_NAME:
        return None
    file, names = Path(given), ", ".join(BY_NAME)
    if not file.exists():
        raise HonesError(
            f"no chat template {given[:200]!r}", expected=f"a file with a Jinja template, or a name: {names}"
        )
    text = read_text(file, _DO)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict):
        text = default_of(content.get("chat_template")) or ""
    if not text.strip():
        raise HonesError(f"{given} holds no chat template", expected="a Jinja template", do=f"or give a name: {names}")
    return text
