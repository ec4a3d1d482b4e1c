"""`python -m beam_retrain.pipelines.serve`."""

import sys

from beam_retrain.pipelines.serve.command import run
from beam_retrain.transforms.core.run.exit_codes import run_command

if __name__ == "__main__":
  sys.exit(run_command(run, sys.argv[1:]))
