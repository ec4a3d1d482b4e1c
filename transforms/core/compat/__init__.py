"""Formats and rules of retrain.py and mnist_jpg.py."""
