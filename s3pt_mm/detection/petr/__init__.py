"""PETR (arXiv 2203.05625)."""
