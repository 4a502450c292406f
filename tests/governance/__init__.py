"""Tests of governance/."""
