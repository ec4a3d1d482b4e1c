"""Running this project's own commands as a user does, whole processes, with their time."""

from __future__ import annotations

import subprocess
import sys
import time

COMMAND = (sys.executable, "-m", "beam_retrain.pipelines.cli")


def timed(*arguments: str) -> float:
  """Runs `beam-retrain ARGUMENTS` and returns its wall time in seconds, start-up included.

  Raises:
    SystemExit: the command failed; its own words are above.
  """
  print(f"$ beam-retrain {' '.join(arguments)}", flush=True)
  start = time.perf_counter()
  code = subprocess.run([*COMMAND, *arguments]).returncode
  if code:
    raise SystemExit(f"beam-retrain {arguments[0]} ended with exit code {code}")
  return time.perf_counter() - start


def table(rows: list[tuple[str, ...]]) -> str:
  """Returns rows of text as a Markdown table, the first one as its head."""
  head, *body = rows
  return "\n".join("| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *body))
