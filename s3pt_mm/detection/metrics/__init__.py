"""The devkit's figures, whole, by range and on parts of a split."""
