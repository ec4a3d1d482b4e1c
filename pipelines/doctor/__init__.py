"""`beam-retrain doctor`: whether an engine, its workers and this machine fit together."""
