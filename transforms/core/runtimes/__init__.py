"""Trunks prepared for TensorFlow or OpenVINO."""
