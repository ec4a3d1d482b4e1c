"""`python -m beam_retrain.pipelines.plan`."""

import sys

from beam_retrain.pipelines.jobs.runner import run_command
from beam_retrain.pipelines.plan.command import run

if __name__ == "__main__":
  sys.exit(run_command(run, sys.argv[1:]))
