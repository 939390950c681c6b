"""Probes of frozen features that need neither mmseg nor mmdet3d: dense k-NN, linear probe."""
