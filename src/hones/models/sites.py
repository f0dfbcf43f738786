"""What a place in a model is called; here, because settings that name sites need not wait for torch."""

from typing import Annotated

from pydantic import Field

Site = tuple[int, int]
"""(layer, head) or (layer, neuron)."""

Expert = Annotated[int | None, Field(exclude_if=lambda number: number is None)]
"""Whose neuron it is, in a mixture of experts; elsewhere None, and in no file."""
