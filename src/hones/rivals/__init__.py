"""Comparison methods: every rival of HONES as one file behind one interface (hones methods, hones compare)."""

from hones.errors import HonesError
from hones.rivals.ap import ActivationProbability
from hones.rivals.ape import ActivationProbabilityEntropy
from hones.rivals.atp import AttributionPatching
from hones.rivals.base import Method
from hones.rivals.cna import ContrastiveActivation
from hones.rivals.dvp import DirectProjection
from hones.rivals.hones import Hones, HonesAllTokens, HonesNormGain, HonesPerItem
from hones.rivals.hones_plus import HonesPlus
from hones.rivals.knowledge_neurons import KnowledgeNeurons
from hones.rivals.layer_random import LayerRandom
from hones.rivals.logprob_gain import LogProbabilityGain
from hones.rivals.ma import MeanActivation
from hones.rivals.oracle import Oracle
from hones.rivals.qrnca import Qrnca
from hones.rivals.uniform import Random
from hones.rivals.wanda import Wanda

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Hones(),
        HonesPerItem(),
        HonesNormGain(),
        HonesAllTokens(),
        HonesPlus(),
        DirectProjection(),
        Random(),
        LayerRandom(),
        ActivationProbability(),
        MeanActivation(),
        ActivationProbabilityEntropy(),
        LogProbabilityGain(),
        Wanda(),
        AttributionPatching(),
        KnowledgeNeurons(),
        Qrnca(),
        ContrastiveActivation(),
        Oracle(),
    )
}


def make_method(name: str) -> Method:
    """The method of that name.

    Raises:
        HonesError: no such method.
    """
    if name not in METHODS:
        raise HonesError(f"no method {name!r}", expected=f"one of {', '.join(METHODS)}")
    return METHODS[name]


def make_methods(names: str) -> list[Method]:
    """The methods of a comma-separated list, in the order of METHODS; `all`: every one but the oracle.

    Raises:
        HonesError: no such method, or one named twice.
    """
    wanted = [name for name in METHODS if name != Oracle.name] if names == "all" else names.split(",")
    chosen = [make_method(name) for name in wanted]
    if len(set(wanted)) < len(wanted):
        raise HonesError(f"--methods {names}", expected="each method once")
    return [method for method in METHODS.values() if method in chosen]
