"""Small random models of both families, in their real on-disk format, and a folder of built-in pictures."""

import shape_checks  # noqa: F401  before hones is imported

# isort: split
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from random_models import save_random_llava, save_random_qwen

from hones import load_items, load_vlm, write_shapes
from hones.data.items import Items
from hones.models.vlm import VLM

settings.register_profile("hones", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("hones")

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
def read(tmp_path: Path) -> Callable[..., Items]:
    """Writes a file and reads its items."""

    def read(content: str | bytes, query: str = "", name: str = "table.csv", **options: Any) -> Items:
        raw = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(raw)
        return load_items(f"{tmp_path / name}{query}", **options)

    return read
