"""From planned shards to predictions, figures and comparisons."""
