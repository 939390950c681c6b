"""Deliberate faults in important files, and whether a test notices."""
