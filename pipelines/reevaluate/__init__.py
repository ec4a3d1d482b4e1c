"""`beam-retrain reevaluate`: nights, their history and comparison."""
