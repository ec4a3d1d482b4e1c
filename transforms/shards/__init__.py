"""The spine: a shard is planned, worked and closed."""
