"""Tasks as a user names them: TASK.yaml, `package.module:Class` or `file.py:Class`.

A YAML file is only read. A class subclasses `Task` and is made without arguments; the file that holds it is executed.
The digest of a class is that of its source file and of the files in the same folder that this one imports, and so on.
"""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from hones.errors import HonesError
from hones.files import digest
from hones.tasks.base import Definition, Task
from hones.tasks.custom import check_name, task_of_file
from hones.tasks.user_code import USER_MODULES, module_of_file, user_code


def is_custom(given: str) -> bool:
    """Whether --task names a YAML file or a class."""
    return given.endswith((".yaml", ".yml")) or ":" in given


def is_file(given: str) -> bool:
    """Whether --task names a file: relative to the configuration that says so."""
    return is_custom(given) and (":" not in given or given.rpartition(":")[0].endswith(".py"))


def load_task(given: str) -> Task:
    """The task of a YAML file, or of a class as `package.module:Class` or `file.py:Class`.

    Raises:
        HonesError: no such file or class, or not a task.
    """
    if ":" not in given:
        return task_of_file(given)
    place, _, name = given.rpartition(":")
    from_file = place.endswith(".py")
    module, source = module_of_file(Path(place), "the task", "--task") if from_file else _from_package(place, given)
    kind = getattr(module, name, None)
    if not (isinstance(kind, type) and issubclass(kind, Task)):
        raise HonesError(f"{place} has no task class {name!r}", expected="a subclass of hones.Task")
    missing = sorted(kind.__abstractmethods__)
    missing += [x for x in ("name", "metric_name", "answers", "statistic_names") if not hasattr(kind, x)]
    if missing:
        raise HonesError(f"{given} lacks {', '.join(missing)}", do="see docs/tasks.md")
    if kind.answers not in ("text", "yes_no"):
        raise HonesError(f"{given}: answers = {kind.answers!r}", expected="text or yes_no")
    if kind.stop is not None and not (
        isinstance(kind.stop, tuple) and all(isinstance(x, str) and x for x in kind.stop)
    ):
        raise HonesError(f"{given}: stop = {kind.stop!r}", expected="a tuple of texts that are not empty")
    try:
        check_name(str(kind.name))
    except ValueError as error:
        raise HonesError(f"{given}: {error}", expected="a free name") from error
    with user_code(f"make {given}", expected="a class that is made without arguments"):
        task = kind()
    task.definition = Definition(given, digest(b"".join([source, *_imported_beside(Path(str(module.__file__)))])))
    return task


def _imported_beside(file: Path) -> list[bytes]:
    """The content of the files below the file's folder that it imports, directly or through others, by their names."""
    content: dict[Path, bytes] = {file.resolve(): b""}
    waiting = [file.resolve()]
    while waiting:
        importing = waiting.pop()
        for path in _imports(importing, importing.read_bytes()):
            if path not in content and path.is_file():
                content[path] = path.read_bytes()
                waiting.append(path)
    return [content[path] for path in sorted(content)]


def _imports(file: Path, source: bytes) -> Iterator[Path]:
    """Where the modules that a file imports would be in its own folder; `from .a import b` counts from its package."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            imported = (base, *(f"{base}.{alias.name}".lstrip(".") for alias in node.names))
            names = [(node.level, name) for name in imported if name]
        else:
            continue
        for level, name in names:
            place = file.parents[max(0, level - 1)].joinpath(*name.split("."))
            yield from (place.with_suffix(".py"), place / "__init__.py")


def _from_package(place: str, given: str) -> tuple[ModuleType, bytes]:
    """An installed module, and its source."""
    USER_MODULES.add(place)
    with user_code(f"import {place!r} of --task {given}", expected="package.module:Class or file.py:Class"):
        module = importlib.import_module(place)
    if module.__file__ is None:
        raise HonesError(f"{place} of --task {given} has no source file", expected="package.module:Class")
    return module, Path(module.__file__).read_bytes()
