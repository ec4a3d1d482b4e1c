"""What evaluate and reevaluate share after the job: figures, gates, files."""
