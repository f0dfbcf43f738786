"""Training of `smol-llava`, the built-in model with a real language model; nothing here is shipped in the package."""
