"""Head scores as node scores in the JSON of EAP-IG's graphs, which the Mechanistic Interpretability Benchmark reads.

    {"cfg": {"n_layers", "n_heads", "parallel_attn_mlp", "d_model"},
     "nodes": {"input": {"in_graph": true}, "a0.h1": {"in_graph": false, "score": 0.01}, "m0": {"in_graph": true}, ...},
     "edges": {}}

in_graph of a head: whether it is in H*. Inputs, FFNs and logits are no nodes that a head score speaks of: they have no
score and stay in the graph, as that reader takes unscored nodes. Its neurons are those of the residual, not FFN
neurons, so these are not in the file.
"""

from pathlib import Path
from typing import Any

from hones.errors import HonesError, seam
from hones.files import write_json
from hones.method.found import HeadResult
from hones.models.place import folder_of
from hones.runs.results import read_results
from hones.sharing.publish import gather

PARALLEL = ("use_parallel_residual", "parallel_attn", "new_decoder_architecture")
"""What configurations say of blocks whose attention and FFN read the same residual; Cohere's and Phi's say nothing."""


def mib_graph(heads: HeadResult, layers: int, per_layer: int, width: int, parallel: bool) -> dict[str, Any]:
    """The graph of a model of L layers of H heads.

    Args:
        width: of the residual. parallel: whether attention and FFN of a layer read the same residual.

    Raises:
        HonesError: the heads are not all of such a model's.
    """
    sites = {(h.layer, h.head) for h in heads.heads}
    if sites != {(layer, head) for layer in range(layers) for head in range(per_layer)}:
        raise HonesError(
            f"{len(sites)} scored heads", expected=f"all {layers} x {per_layer} of the model, for --format mib"
        )
    critical = {(h.layer, h.head) for h in heads.critical}
    scores = {(h.layer, h.head): h.score.value for h in heads.heads}
    nodes: dict[str, dict[str, Any]] = {"input": {"in_graph": True}}
    for layer in range(layers):
        for head in range(per_layer):
            site = (layer, head)
            nodes[f"a{layer}.h{head}"] = {"in_graph": site in critical, "score": scores[site]}
        nodes[f"m{layer}"] = {"in_graph": True}
    nodes["logits"] = {"in_graph": True}
    cfg = {"n_layers": layers, "n_heads": per_layer, "parallel_attn_mlp": parallel, "d_model": width}
    return {"cfg": cfg, "nodes": nodes, "edges": {}}


def publish_mib(run: Path, to: Path | None = None, task: str | None = None, model: str | None = None) -> Path:
    """Write the head scores of a task of a run, by default to RUN/TASK/heads.mib.json; returns the path.

    Args:
        task: where the run has several. model: the run's, where it has moved; only its configuration is read.

    Raises:
        HonesError: no such task or heads, a configuration that cannot be read or is of another shape.
    """
    found = gather(run)
    heads = found.heads(task)
    name = task or next(iter(found.tasks))
    source, revision = _model_of(run)
    config = text_config(model or source, revision)
    parallel = config.model_type.startswith("cohere") or config.model_type == "phi"
    parallel = parallel or any(getattr(config, name, False) for name in PARALLEL)
    graph = mib_graph(heads, config.num_hidden_layers, config.num_attention_heads, config.hidden_size, parallel)
    to = run / name / "heads.mib.json" if to is None else to
    write_json(to, graph)
    return to


def _model_of(run: Path) -> tuple[str, str | None]:
    """The model as the run names it, and its commit on the hub."""
    fingerprints = [s.fingerprint for s in read_results(run).record.stages.values() if "model" in s.fingerprint]
    revision = str(fingerprints[0].get("revision"))
    local = revision.startswith("sha256:") or revision == "unknown"
    return str(fingerprints[0]["model"]), None if local else revision


def text_config(model: str, revision: str | None) -> Any:
    """The configuration of a model's decoder.

    Raises:
        HonesError: it cannot be read.
    """
    from transformers import AutoConfig

    with seam(f"read the configuration of {model}", do="name the run's model with --model, if it has moved"):
        return AutoConfig.from_pretrained(folder_of(model) or model, revision=revision).get_text_config()
