"""`beam-retrain plan`: time, memory and disk that bottlenecks will take."""
