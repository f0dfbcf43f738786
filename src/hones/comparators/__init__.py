"""Comparison methods: every rival of HONES as one file behind one interface (hones methods, hones compare)."""
