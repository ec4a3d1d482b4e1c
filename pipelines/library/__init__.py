"""What programs import; the public names are in `beam_retrain/__init__.py`."""
