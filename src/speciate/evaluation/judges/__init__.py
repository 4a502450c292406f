"""Models that judge answers: grades, or which of two is better; asked, paid and kept like any other model."""
