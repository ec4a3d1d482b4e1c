"""Frozen graphs and text bottlenecks of retrain.py, in Beam jobs."""
