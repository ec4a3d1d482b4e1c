"""retrain.py's flags, summaries and checkpoints."""
