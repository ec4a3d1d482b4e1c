"""Trunks and trained models, and how they are executed."""
