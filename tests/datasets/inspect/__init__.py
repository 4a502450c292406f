"""Tests of inspect/."""
