"""Tests of gathering/."""
