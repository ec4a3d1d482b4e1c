"""Comparing outputs, and the ways to an image's scores."""
