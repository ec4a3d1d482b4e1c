"""Local files, by the names that `transforms.io.files` has for those of any file system."""

from __future__ import annotations

import os


def exists(path: str) -> bool:
  return os.path.exists(path)


def read_bytes(path: str) -> bytes:
  with open(path, "rb") as file:
    return file.read()
