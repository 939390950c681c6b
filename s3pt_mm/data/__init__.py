"""Data: datasets, transforms, geometry, class sets, labelled images."""
