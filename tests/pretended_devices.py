"""Devices that are only pretended, so that a model can be split over several on a machine that has one.

While `pretended()` is on, every tensor has a place: the CPU, or a device that it was made on or moved to. `x.device`
says that place, `x.to(place)` copies, results are where their operands are, and an operation on two places raises what
torch would (a number without dimensions may stay on the CPU). All is computed on the CPU by torch itself, autograd too,
so a split model has the numbers of the same model on one device. What operations inside torch's own functions do, and
where gradients are on their way back, is not checked.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from accelerate import dispatch_model
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

CPU = torch.device("cpu")
DEVICE: Any = Tensor.device
IS_CUDA: Any = Tensor.is_cuda
DATA: Any = Tensor.data
FREE = {  # operations whose operands may be anywhere
    *(
        "to",
        "cpu",
        "cuda",
        "copy_",
        "__get__",
        "__set__",
        "__delete__",
        "__repr__",
        "__format__",
        "__len__",
        "__hash__",
    ),
    *("size", "dim", "numel", "element_size", "is_floating_point", "is_complex", "stride", "is_contiguous", "data_ptr"),
    *("storage_offset", "untyped_storage", "result_type", "backward", "register_hook"),
}
INDEXING = {"__getitem__", "__setitem__"}


def place_of(x: Tensor) -> torch.device:
    """Where a tensor is said to be."""
    return x.__dict__.get("pretended", CPU)


def put(x: Any, place: torch.device) -> Any:
    """The same tensors, said to be somewhere."""
    if isinstance(x, Tensor):
        x.pretended = place  # pyright: ignore[reportAttributeAccessIssue]
    elif isinstance(x, Mapping):
        for value in x.values():
            put(value, place)
    elif isinstance(x, list | tuple):
        for value in x:
            put(value, place)
    return x


def tensors_in(x: Any) -> Iterator[Tensor]:
    """All tensors of nested arguments."""
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, Mapping):
        for value in x.values():
            yield from tensors_in(value)
    elif isinstance(x, list | tuple):
        for value in x:
            yield from tensors_in(value)


class Pretence(TorchFunctionMode):
    """Torch with a place for every tensor; `seen` are the places that results were put on."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.device] = set()

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if func == DEVICE.__get__:
            return place_of(args[0])
        if func == IS_CUDA.__get__:
            return place_of(args[0]).type == "cuda"
        if name in ("to", "cpu", "cuda"):
            return self.moved(func, name, args, kwargs)
        asked = kwargs.pop("device", None)
        given = [*tensors_in(args), *tensors_in(kwargs)]
        if name in ("numpy", "__array__") and place_of(args[0]) != CPU:
            raise TypeError(f"can't convert {place_of(args[0])} device type tensor to numpy")
        if name == "__set__" and func == DATA.__set__:
            func(*args)
            put(args[0], place_of(args[1]))
            return None
        place = place_of(args[0]) if name in FREE and given else self.common(name, args, given)
        result = func(*args, **kwargs)
        if name in ("grad", "_make_grads") and func is torch.autograd.grad:
            inputs = args[1] if len(args) > 1 else kwargs["inputs"]
            for gradient, x in zip(result, tensors_in([inputs]), strict=True):
                put(gradient, place_of(x))
            return result
        place = place if asked is None else torch.device(asked)
        for x in tensors_in(result):
            if not any(x is other for other in given):
                put(x, place)
                self.seen.add(place)
        return result

    def common(self, name: str, args: tuple[Any, ...], given: list[Tensor]) -> torch.device:
        """The one place of the operands.

        Raises:
            RuntimeError: there are two.
        """
        if name == "grad" or not given:
            return CPU
        if name in INDEXING and isinstance(args[0], Tensor):
            first = place_of(args[0])
            indices = [x for x in tensors_in(args[1]) if place_of(x) != CPU]
            values = [x for x in tensors_in(args[2:]) if x.ndim > 0 and any(True for _ in tensors_in(args[1]))]
            others = [x for x in [*indices, *values] if place_of(x) != first]
            if others:
                raise RuntimeError(
                    f"indices should be either on cpu or on the same device as the indexed tensor ({first}), "
                    f"not on {place_of(others[0])}"
                )
            return first
        strict = name in ("cat", "stack", "concat", "bmm", "linear", "embedding")
        counted = {place_of(x) for x in given if strict or x.ndim > 0 or place_of(x) != CPU}
        if len(counted) > 1:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, "
                f"{' and '.join(sorted(map(str, counted)))}! (in {name})"
            )
        return next(iter(counted), CPU)

    def moved(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """`x.to(...)`, with a copy where the place changes."""
        x, rest = args[0], list(args[1:])
        place = CPU if name == "cpu" else None if name == "to" else torch.device("cuda", rest[0] if rest else 0)
        if name != "to":
            rest = []
        for at, value in enumerate(rest):
            if isinstance(value, Tensor):
                place, rest[at] = place_of(value), value
            elif isinstance(value, torch.device | str) or (
                isinstance(value, int) and not isinstance(value, bool) and at == 0
            ):
                place = torch.device("cuda", value) if isinstance(value, int) else torch.device(value)
                rest[at] = CPU
        if kwargs.get("device") is not None:
            asked = kwargs["device"]
            place = torch.device("cuda", asked) if isinstance(asked, int) else torch.device(asked)
            kwargs["device"] = CPU
        place = place_of(x) if place is None else place
        result = Tensor.to(x, *rest, **kwargs) if name == "to" else x
        if place == place_of(x) and result is x:
            return x
        result = result.clone() if result is x else result
        self.seen.add(place)
        return put(result, place)


@contextlib.contextmanager
def pretended() -> Iterator[Pretence]:
    """Every tensor has a place while this is on."""
    with Pretence() as pretence:
        yield pretence


def split(model: Any, layers: nn.ModuleList, at: int, first: str, second: str, main: str) -> Any:
    """The model with layers from `at` on, the last norm and the lm_head on the second device, by accelerate.

    main: where accelerate moves what the whole model is called with; it takes any of the devices.
    """
    names = {id(module): name for name, module in model.named_modules()}
    above = {names[id(layer)] for layer in layers[at:]}
    stack = names[id(layers)].removesuffix(".layers")
    above |= {f"{stack}.norm", names[id(model.get_output_embeddings())]}
    device_map: dict[str, Any] = {}

    def spread(module: nn.Module, name: str) -> None:
        inside = any(x == name or x.startswith(f"{name}.") or not name for x in above)
        if name in above or not inside:
            device_map[name] = second if name in above else first
            return
        for own, child in module.named_children():
            spread(child, f"{name}.{own}" if name else own)

    spread(model, "")
    for name, module in model.named_modules():
        place = next((p for n, p in device_map.items() if name == n or name.startswith(f"{n}.")), first)
        for x in [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
            put(x, torch.device(place))
    return dispatch_model(
        model, device_map, main_device=torch.device(main), skip_keys=model._skip_keys_device_placement
    )
