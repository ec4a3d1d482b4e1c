"""`python -m beam_retrain.pipelines.export`."""

import sys

from beam_retrain.pipelines.export.command import run
from beam_retrain.pipelines.jobs.runner import run_command

if __name__ == "__main__":
  sys.exit(run_command(run, sys.argv[1:]))
