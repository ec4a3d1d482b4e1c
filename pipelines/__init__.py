"""Entry points: one Beam job per file, and the command line."""
