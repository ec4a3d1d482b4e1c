"""`beam-retrain export`: bottlenecks, predictions and figures as tables."""
