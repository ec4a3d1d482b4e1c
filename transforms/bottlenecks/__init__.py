"""From planned shards to bottleneck records."""
