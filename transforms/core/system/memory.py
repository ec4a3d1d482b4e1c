"""Memory: available, peak, and recognising out-of-memory errors."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from beam_retrain.transforms.core.system.cpu import groups_of, read_number, read_text

_ROOT = Path("/")
_MESSAGES = (
  "bad_alloc",
  "out of memory",
  "out_of_memory",
  "could not allocate",
  "failed to allocate",
  "oom when allocating",
)
_UNLIMITED = 1 << 60  # "no limit" is a number near 2**63 in version 1


def available_memory(root: Path = _ROOT) -> int:
  """Returns the available memory in bytes, within any cgroup limit.

  Formats: `proc(5)`, `MemAvailable` in kB; `cgroups(7)`: version 2, `memory.max` and `memory.current`; version 1,
  `memory.limit_in_bytes` and `memory.usage_in_bytes`; `inactive_file` of `memory.stat` is used memory that can be
  reclaimed. 4 GB are assumed where none of them exists.
  """
  left = []
  if (available := _entry(root / "proc/meminfo", "MemAvailable:")) is not None:
    left.append(available << 10)
  for folder, version_2 in groups_of("memory", root):
    limit = read_number(folder / ("memory.max" if version_2 else "memory.limit_in_bytes"))
    used = read_number(folder / ("memory.current" if version_2 else "memory.usage_in_bytes"))
    if limit is not None and used is not None and limit < _UNLIMITED:
      reclaimable = _entry(folder / "memory.stat", "inactive_file" if version_2 else "total_inactive_file") or 0
      left.append(max(0, min(limit, limit - used + reclaimable)))
  return min(left, default=4 << 30)


def _entry(path: Path, name: str) -> int | None:
  for line in read_text(path).splitlines():
    first, *rest = line.split()
    if first == name:
      return int(rest[0])
  return None


def peak_memory(of: int = resource.RUSAGE_SELF) -> int:
  """Returns the peak memory, bytes, of this process or a finished child."""
  peak = resource.getrusage(of).ru_maxrss
  return peak if sys.platform == "darwin" else peak << 10


def is_out_of_memory(error: BaseException) -> bool:
  """Returns whether an error means that memory ran out.

  Covers Python and TensorFlow; OpenVINO and Pillow, which have no class for it, by their messages.
  """
  if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
    return True
  return isinstance(error, (RuntimeError, OSError)) and any(words in str(error).lower() for words in _MESSAGES)
