"""A model whose layers are on two devices gives, bit for bit, what it gives on one (`pretended_devices`)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pretended_devices import pretended, split

from hones import (
    SteeringSettings,
    attach,
    attribute_neurons,
    evaluate_masking,
    learn_scales,
    load_vlm,
    localize_heads,
    make_task,
    verify,
)
from hones.data.items import Items
from hones.method.found import HeadScore
from hones.models.vlm import VLM
from hones.rivals import make_method
from hones.rivals.base import Context
from hones.stats import Interval
from hones.sweep.run import SweepSettings

HEADS = [HeadScore(layer, 1, Interval(1.0, 1.0, 1.0), 0.0, 0.0) for layer in (0, 1)]
NEURONS = [(0, 1), (0, 4), (1, 3), (2, 5)]
FIRST, SECOND = "cuda:0", "cuda:1"


def stages(vlm: VLM, discovery: Items) -> dict[str, Any]:
    """What each stage gives: texts and margins by the fast engine, heads and neurons by the definition too."""
    caption, retrieval = make_task("caption"), make_task("retrieval", candidates=4)
    few, two = caption.examples(discovery)[0][:2], retrieval.examples(discovery)[0][:2]
    one = two[:1]
    fast, naive = (SweepSettings(engine, max_new_tokens=3) for engine in ("replay", "naive"))
    return {
        "heads": localize_heads(vlm, caption, few, sweep=fast),
        "heads of margins": localize_heads(vlm, retrieval, one, sweep=fast),
        "heads by definition": localize_heads(vlm, caption, few[:1], sweep=naive),
        "neurons": attribute_neurons(vlm, caption, few, HEADS, sweep=fast).tolist(),
        "neurons by definition": attribute_neurons(vlm, caption, few, HEADS, sweep=naive).tolist(),
        "gradients of shared prefixes": make_method("hones+").importance(Context(vlm, retrieval, two)).tolist(),
        "gradients of kept pictures": make_method("rounds")
        .with_schedule(rounds=16, width=4)
        .importance(Context(vlm, caption, few))
        .tolist(),
        "masking": evaluate_masking(vlm, caption, few, NEURONS, draws=1, sweep=fast),
        "scales": learn_scales(vlm, caption, few, NEURONS, SteeringSettings(epochs=1)),
    }


@pytest.mark.parametrize(("family", "main"), [("llava", SECOND), ("qwen", FIRST)])
def test_stages_on_two_devices_are_those_on_one(
    family: str, main: str, model_folders: dict[str, Path], discovery: Items, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No warning either, so the fast engine, the fast trainer and shared beginnings served.

    main: accelerate takes either device.
    """
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (2**33, 2**33))
    found: dict[str, Any] = {}
    for second in (FIRST, SECOND):
        loaded = load_vlm(str(model_folders[family]))
        with pretended() as pretence:
            layers: Any = loaded.model.get_decoder().layers
            split(loaded.model, layers, 1, FIRST, second, FIRST if second == FIRST else main)
            vlm = attach("split", loaded.model, loaded.processor)
            assert [str(x.o_proj.weight.device) for x in vlm.anatomy.layers] == [FIRST, second, second]
            found[second] = stages(vlm, discovery)
            if second == SECOND:
                claims = verify(vlm)
                assert (claims.failed, claims.engine) == ([], "replay")
        assert {str(x) for x in pretence.seen} >= {FIRST, second}
    assert found[FIRST] == found[SECOND]


def test_what_the_pretence_refuses() -> None:
    with pretended():
        x, y = torch.ones(2, 3, device=FIRST), torch.ones(3, device="cpu").to(SECOND)
        assert (str(x.device), str(y.device), str((x + 1).device)) == (FIRST, SECOND, FIRST)
        for mixing in (
            lambda: x + y,
            lambda: x @ y,
            lambda: torch.stack([y, y.to(FIRST)]),
            lambda: x[:, torch.tensor([0], device=SECOND)],
            lambda: x.index_add_(1, torch.tensor([0], device=FIRST), y[:2, None]),
            lambda: x.add_(y),
            lambda: torch.nn.functional.linear(x, y[None]),
        ):
            with pytest.raises(RuntimeError, match=r"same device"):
                mixing()
        with pytest.raises(TypeError, match="can't convert cuda:1 device type tensor to numpy"):
            y.numpy()
        assert str((x * torch.tensor(2.0)).device) == FIRST and str(x[torch.tensor([0])].device) == FIRST
        z = (x @ y.to(FIRST).requires_grad_()).sum().to(SECOND)
        assert str(z.device) == SECOND and z.requires_grad
    assert str(x.device) == "cpu"
