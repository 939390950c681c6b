"""Command-line tools; developers' own are in ``tools.dev``."""
