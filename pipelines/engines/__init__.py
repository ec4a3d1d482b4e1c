"""Engines that jobs run on: options, checks before a job, known failures."""
