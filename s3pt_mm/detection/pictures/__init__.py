"""Boxes drawn into the six photos."""
