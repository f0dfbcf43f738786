"""How results are shown: tables for terminals and notebooks, pages, figures."""
