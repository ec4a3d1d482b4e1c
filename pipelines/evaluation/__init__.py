"""Shared by `evaluate` and `reevaluate`: request, figures, gates, files."""
