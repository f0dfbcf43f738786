"""Shapes are checked while tests run, in every function and dataclass of hones that names an array of jaxtyping.

conftest imports this before hones. jaxtyping's own import hook checks all functions, and writes the check of one within
another each time that the outer one runs, for every edit and layer of a sweep: half of the tests' time.
"""

import inspect
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any, get_args

from beartype import beartype
from jaxtyping import AbstractArray, jaxtyped


class Checks(MetaPathFinder):
    """Puts the checks on a module of hones when it is imported."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname.partition(".")[0] != "hones":
            return None
        spec: Any = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_check(module: ModuleType) -> None:
                run(module)
                check(module)

            spec.loader.exec_module = run_and_check
        return spec


def check(module: ModuleType) -> None:
    """Check the module's functions and methods that name an array; a dataclass has its own in __init__."""
    own = [value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__]
    for holder in (module, *filter(inspect.isclass, own)):
        for name, value in [*vars(holder).items()]:
            function = getattr(value, "__func__", getattr(value, "fget", value))
            if (
                inspect.isfunction(function)
                and function.__module__ == module.__name__
                and not is_context(function)
                and any(map(names_array, function.__annotations__.values()))
            ):
                setattr(holder, name, jaxtyped(value, typechecker=beartype))


def is_context(function: Any) -> bool:
    """Whether a generator was made a context manager, which does not return what it says."""
    return inspect.isgeneratorfunction(inspect.unwrap(function)) and not inspect.isgeneratorfunction(function)


def names_array(annotation: Any) -> bool:
    """Whether an annotation is or holds an array of jaxtyping."""
    inner = annotation if isinstance(annotation, list) else get_args(annotation)
    return any(map(names_array, inner)) or (inspect.isclass(annotation) and issubclass(annotation, AbstractArray))


sys.meta_path.insert(0, Checks())
