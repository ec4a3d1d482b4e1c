"""Merges what pip froze on several Pythons into one constraints file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

HEADER = (
  "# The exact sets that the tests ran with, one for each Python (pip --constraint)."
  " Made by `make constraints`; not edited by hand."
)


def merge(frozen: Mapping[str, str]) -> str:
  """Returns the file's text: a line without a marker holds for all Pythons.

  `frozen`: version of Python, as "3.11" -> what `pip freeze` printed there.
  """
  pythons: dict[str, list[str]] = {}
  for python, text in frozen.items():
    for line in text.split("\n"):
      if "==" in line:
        pythons.setdefault(line.strip(), []).append(python)
  lines = []
  for pin in sorted(pythons, key=str.lower):
    where = " or ".join(f'python_version == "{python}"' for python in pythons[pin])
    lines.append(pin if len(pythons[pin]) == len(frozen) else f"{pin}; {where}")
  return "\n".join([HEADER, *lines]) + "\n"


def main(argv: list[str]) -> int:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("frozen", nargs="+", metavar="PYTHON=FILE", help="3.11=what pip freeze printed there")
  arguments = parser.parse_args(argv)
  files = dict(each.split("=", 1) for each in arguments.frozen)
  print(merge({python: Path(file).read_text() for python, file in files.items()}), end="")
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
