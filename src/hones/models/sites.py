"""What a place in a model is called; here, because settings that name sites need not wait for torch."""

Site = tuple[int, int]
"""(layer, head) or (layer, neuron)."""
