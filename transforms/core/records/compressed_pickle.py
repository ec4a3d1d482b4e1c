"""Records that travel compressed: a list of a thousand files names the same folders a thousand times.

The local runner keeps in memory what crosses a shuffle. What is packed here is unpacked by Beam's own pickling only, in
the workers of the same job; nothing of it is ever stored.
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
  """Inverse of `pack`."""
  items: tuple[Any, ...] = pickle.loads(zlib.decompress(packed))
  return items


def reduce_packed(record: tuple[Any, ...]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
  """Returns what the `__reduce__` of a named tuple returns, so that it is packed whenever it is pickled."""
  return _make, (type(record), pack(record))


def _make(kind: type[Any], packed: bytes) -> Any:
  return kind(*unpack(packed))
