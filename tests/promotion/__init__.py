"""Tests of promotion/."""
