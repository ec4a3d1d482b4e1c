"""Threads that ask for many objects side by side, as each takes its time to answer."""

from __future__ import annotations

import functools
import os
from concurrent.futures import ThreadPoolExecutor

_THREADS = 10  # as many connections as boto3's client has


@functools.cache
def threads() -> ThreadPoolExecutor:
  """Returns this process's own. What runs in them must not wait for them."""
  return ThreadPoolExecutor(_THREADS)


os.register_at_fork(after_in_child=threads.cache_clear)  # they are not there in a process that was forked
