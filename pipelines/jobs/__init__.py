"""Running a job: output folder, runner, progress, worker processes."""
