"""`beam-retrain serve`: a model behind HTTP, with pages."""
