"""`beam-retrain reevaluate`: nights, their history and their comparison."""
