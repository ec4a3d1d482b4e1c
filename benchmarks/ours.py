"""One of our own commands in a process, with the times at which its bottlenecks were ready to be written.

  python -m benchmarks.ours ENDS_FILE bottlenecks --input DIR ...

ENDS_FILE gets `ends` as `benchmarks.peers.protocol` has them, one for each 64 bottlenecks, so that batches of 8 to 64
end with them, and one for a shard's last ones. With more than one process the file is empty: those are not this one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.peers.protocol import End, end_of_batch

_EVERY = 64


def stamp_batches(items: Iterator[Any], ends: list[End]) -> Iterator[Any]:
  """Passes items on; `ends` gets an entry for every 64 and for the rest."""
  count = 0
  for item in items:
    yield item
    count += 1
    if count == _EVERY:
      ends.append(end_of_batch(count))
      count = 0
  if count:
    ends.append(end_of_batch(count))


def main() -> int:
  from beam_retrain.pipelines import cli
  from beam_retrain.transforms.core.system.imports import leave_out_of_beam, load_command

  leave_out_of_beam()  # as the command does
  shard = load_command("beam_retrain.transforms.bottlenecks.embed").EmbedShard

  ends: list[End] = []
  work = shard.work
  shard.work = lambda self, one: stamp_batches(work(self, one), ends)
  code = cli.main(sys.argv[2:])
  Path(sys.argv[1]).write_text(json.dumps(ends))
  return code


if __name__ == "__main__":
  sys.exit(main())
