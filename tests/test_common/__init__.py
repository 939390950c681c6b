"""Tests of s3pt_mm/common."""
