"""Runs beside each other: what their differences are worth, and what they cost."""
