"""Importing this applies :mod:`s3pt_mm.hosts.compat`: for configs that the hosts' own tools run."""

from s3pt_mm.hosts import compat

compat.apply()
