"""Figures: label statistics, intervals, comparisons, mistakes."""
