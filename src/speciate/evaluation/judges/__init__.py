"""Models that judge answers: grades, or which of two is better; asked, paid and cached like any other model."""
