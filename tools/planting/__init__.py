"""Planting of task neurons into the built-in models. `make planted` runs it; nothing here is shipped in the package."""
