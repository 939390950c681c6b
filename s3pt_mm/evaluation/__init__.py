"""Evaluation that needs neither mmseg nor mmdet3d: class lists, confusion counts, dense k-NN."""
