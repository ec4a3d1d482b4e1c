"""`python -m beam_retrain`: the command, where no `beam-retrain` is on the path."""

import sys

from beam_retrain.pipelines.cli import main

if __name__ == "__main__":
  sys.exit(main())
