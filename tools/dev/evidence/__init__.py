"""The ladder DINO, CrIBo, + vMF, + diversity, + depth, beside its controls, on folders of data."""
