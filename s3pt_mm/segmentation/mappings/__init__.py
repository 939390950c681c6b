"""One module a pair of data sets: which classes of the first are which of the second."""
