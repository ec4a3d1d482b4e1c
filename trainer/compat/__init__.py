"""What retrain.py does besides training: its flags, its summaries and checkpoints."""
