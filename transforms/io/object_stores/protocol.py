"""What an object store does for `transforms.io.remote`: there are no folders, only names with slashes in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, Protocol

from beam_retrain.transforms.core.errors import InputError

REFUSED = (401, 403)
"""HTTP: who asks is nobody, or may not."""


class FileStat(NamedTuple):
  path: str
  size_bytes: int
  modified_secs: float


class ObjectStore(Protocol):
  """Paths are whole, as users write them. What stands for an empty folder, a name that ends in a slash, is an object
  like any other here. Several threads call at once."""

  def stat(self, path: str) -> FileStat | None:
    """Returns what is known of one object, or None where it is not there, or these credentials may not see it."""

  def open_to_read(self, path: str) -> BinaryIO:
    """Opens an object; its bytes come as they are, whatever the name says of a compression.

    Raises:
      FileNotFoundError: it is not there.
      InputError: these credentials may not read it.
    """

  def list_prefix(self, prefix: str) -> Iterator[FileStat]:
    """Yields all objects whose path begins so, in the order of their names. No character stands for others."""

  def subfolders(self, folder: str) -> set[str]:
    """Returns the names that objects below a folder have in common up to the next slash."""

  def upload(self, path: str, file: BinaryIO) -> None:
    """Writes what is in a local file that is open, from where it stands: the object appears whole or not at all.

    Raises:
      InputError: these credentials may not.
    """

  def delete(self, paths: list[str]) -> None:
    """Deletes objects, of one bucket, by their exact names. What is not there is no error.

    Raises:
      PermissionError: these credentials may not.
    """


def may_not_read(path: str, reason: object) -> InputError:
  """Returns what `open_to_read` raises; `reason`: the store's own word for it. No OSError, which is of one image and
  quarantines it: credentials can have expired in the middle of a job."""
  return InputError(f"{path} cannot be read with these credentials ({reason}): let them read it, or take it away.")


def may_not_write(path: str, reason: object) -> InputError:
  """Returns what `upload` raises; `reason`: the store's own word for it."""
  return InputError(
    f"{path} cannot be written with these credentials ({reason}): let them write there, or give another place."
  )
