"""The control groups that this process is in: where a container's limits can be read. See `cgroups(7)`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def groups_of(controller: str, root: Path) -> Iterator[tuple[Path, bool]]:
  """Yields the folder of each group that may limit this process, and whether it is of version 2.

  Args:
    controller: `cpu` or `memory`.
    root: where `proc` and `sys` are.
  """
  for line in read_text(root / "proc/self/cgroup").splitlines():
    _, controllers, path = line.split(":", 2)
    version_2 = not controllers
    if version_2 or controller in controllers.split(","):
      # In a container the path may be the host's, and not be there: then the root is the container's own group.
      for group in (PurePosixPath(path), *PurePosixPath(path).parents):
        yield root / "sys/fs/cgroup" / ("" if version_2 else controller) / str(group).lstrip("/"), version_2


def read_text(path: Path) -> str:
  """Returns what a file says; nothing where it cannot be read."""
  try:
    return path.read_text().strip()
  except OSError:
    return ""


def read_number(path: Path) -> int | None:
  """Returns the whole number that a file says; None where it says `max`, or is not there."""
  try:
    return int(read_text(path))
  except ValueError:
    return None
