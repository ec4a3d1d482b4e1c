"""Trunks, heads and exported models, run outside Beam."""
