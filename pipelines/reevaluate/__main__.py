"""`python -m beam_retrain.pipelines.reevaluate`."""

import sys

from beam_retrain.pipelines.jobs.runner import guarded
from beam_retrain.pipelines.reevaluate.command import run

if __name__ == "__main__":
  sys.exit(guarded(run, sys.argv[1:]))
