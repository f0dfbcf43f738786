"""Small random models of both families, in their real on-disk format, and a folder of built-in pictures."""

import shape_checks  # noqa: F401  before hones is imported

# isort: split
import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from hypothesis import settings
from random_models import save_random_llava, save_random_qwen

from hones import load_items, load_vlm, progress, write_shapes
from hones.data.items import Items
from hones.models.vlm import VLM

settings.register_profile("hones", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("hones")

# The commands are built once a process, not at each of the hundreds of calls; and no test outlives a power failure.
typer.main.get_command = functools.cache(typer.main.get_command)
os.fsync = lambda _: None
# However busy the machine is, what tests read of standard error has no line of progress.
progress.SECONDS = float("inf")

FAMILIES = {"llava": save_random_llava, "qwen": save_random_qwen}


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: save(folder / name) for name, save in FAMILIES.items()}


@pytest.fixture(scope="session")
def vlms(model_folders: dict[str, Path]) -> dict[str, VLM]:
    return {name: load_vlm(str(folder)) for name, folder in model_folders.items()}


@pytest.fixture(params=sorted(FAMILIES))
def vlm(request: pytest.FixtureRequest, vlms: dict[str, VLM]) -> VLM:
    return vlms[request.param]


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_shapes(tmp_path_factory.mktemp("shapes"), {"discovery": 6, "dev": 5, "test": 7}, seed=1)


@pytest.fixture(scope="session")
def discovery(shapes: dict[str, Path]) -> Items:
    return load_items(shapes["discovery"])


@pytest.fixture
def picture(shapes: dict[str, Path]) -> Path:
    return shapes["test"].parent / "images" / "test_00001.png"


@pytest.fixture(scope="session")
def app_run(model_folders: dict[str, Path], shapes: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of retrieval on a random model, one of whose answers masking changes."""
    from test_cli import call

    folder = tmp_path_factory.mktemp("app")
    content = {
        "model": str(model_folders["llava"]),
        "out": "run",
        "data": {name: str(file) for name, file in shapes.items()},
        "tasks": ["retrieval"],
        "candidates": 3,
        "ratio": 0.1,
        "draws": 1,
        "anyway": True,
        "steering": {"learning_rate": 0.02, "epochs": 1},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    assert call("run", folder / "config.yaml") == 0
    file = folder / "run/retrieval/answers.jsonl"
    first, *lines = file.read_text().splitlines()
    item = json.loads(first) | {"split": "test", "answers": {"unedited": {"answer": "Yes"}, "masked": {"answer": "No"}}}
    file.write_text("\n".join([json.dumps(item), *lines]))
    return folder / "run"


@pytest.fixture
def desk(app_run: Path, model_folders: dict[str, Path]) -> Any:
    """The model of that run, and what the run offers."""
    from hones.app.desk import Desk
    from hones.app.offered import read_offered
    from hones.models.spec import ModelSpec

    return Desk([ModelSpec(str(model_folders["llava"]))], read_offered(app_run), max_new_tokens=3)


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Items]:
    """Writes a file and reads its items."""

    def read(content: str | bytes, query: str = "", name: str = "table.csv", **options: Any) -> Items:
        raw = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(raw)
        return load_items(f"{tmp_path / name}{query}", **options)

    return read
