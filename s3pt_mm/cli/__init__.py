"""What the entry points run."""
