"""Measures with their uncertainty."""
