"""OpenMMLab under us: compatibility, launching, precision, rates, ranks."""
