"""The method: algorithms and their mathematics, parameter groups, the hooks that belong to it."""
