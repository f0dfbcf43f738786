"""Training of the built-in models. `make tiny` runs it; nothing here is shipped in the package."""
