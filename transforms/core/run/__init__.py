"""Runs of commands: requests, output folders, info.json, stats.json, progress, costs."""
