"""Turns `launch.py --command=NAME FLAGS` of a Flex Template into `beam-retrain NAME FLAGS`."""

import argparse
import sys

from beam_retrain.pipelines.cli import main

parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
parser.add_argument("--command", required=True, choices=["bottlenecks", "convert"])
given, rest = parser.parse_known_args()
sys.exit(main([given.command, *rest]))
