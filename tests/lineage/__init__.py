"""Tests of lineage/."""
