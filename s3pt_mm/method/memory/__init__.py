"""Memory of past images' objects and the search in it."""

from s3pt_mm.method.memory.neighbours import Neighbours, cycle_consistent_neighbours
from s3pt_mm.method.memory.object_queue import ObjectQueue

__all__ = ['Neighbours', 'ObjectQueue', 'cycle_consistent_neighbours']
