"""Compressed pickling of records in transit.

A list of a thousand files repeats the same folders a thousand times, and the local runner keeps in memory what crosses
a shuffle. Only workers of the same job unpickle it; nothing of it is stored.
"""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Callable, Sequence
from typing import Any

_LEVEL = 1


def pack(items: Sequence[Any]) -> bytes:
  return zlib.compress(pickle.dumps(tuple(items), pickle.HIGHEST_PROTOCOL), _LEVEL)


def unpack(packed: bytes) -> tuple[Any, ...]:
  items: tuple[Any, ...] = pickle.loads(zlib.decompress(packed))
  return items


def reduce_packed(record: tuple[Any, ...]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
  """Implements `__reduce__` of a named tuple, so that it is pickled compressed."""
  return _make, (type(record), pack(record))


def _make(kind: type[Any], packed: bytes) -> Any:
  return kind(*unpack(packed))
