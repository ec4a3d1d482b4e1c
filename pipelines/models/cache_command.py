"""`beam-retrain cache`: shows and clears the cache of prepared trunks."""

from __future__ import annotations

import time
from collections.abc import Sequence

from beam_retrain.pipelines.options.cache import CacheRequest
from beam_retrain.reporting.cost_table import size
from beam_retrain.reporting.text_tables import align
from beam_retrain.reporting.wording import counted
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.printing import print
from beam_retrain.transforms.core.run.exit_codes import ExitCode
from beam_retrain.transforms.io import cache

_DAY_SECS = 24 * 60 * 60

run = CacheRequest.run


def execute(request: CacheRequest) -> int:
  if request.older_than and not request.clear:
    raise InputError("--older_than says what --clear removes: add that, or leave it out.")
  entries = cache.entries()
  if not entries:
    print(f"the cache {cache.folder()} is empty")
  elif request.clear:
    _clear(entries, request.older_than or 0.0)
  else:
    print(f"{cache.folder()}: {_described(entries)}", "", *_table(entries), sep="\n")
  return ExitCode.DONE


def _clear(entries: Sequence[cache.Entry], days: float) -> None:
  old = [entry for entry in entries if time.time() - entry.used_secs >= days * _DAY_SECS]
  removed = [entry for entry in old if cache.remove(entry)]
  used = f"; running commands use {counted(len(old) - len(removed), 'other')}" if len(removed) < len(old) else ""
  newer = f"; {counted(len(entries) - len(old), 'newer one')} kept" if len(old) < len(entries) else ""
  print(f"removed {_described(removed)} from {cache.folder()}{used}{newer}")


def _described(entries: Sequence[cache.Entry]) -> str:
  total = sum(entry.size_bytes for entry in entries)
  return f"{counted(len(entries), 'entry', 'entries')}, {size(total)}"


def _table(entries: Sequence[cache.Entry]) -> list[str]:
  rows = [
    [time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used_secs)), size(entry.size_bytes), _short(entry.name)]
    for entry in entries
  ]
  return align(["last used", "size", "entry"], rows).splitlines()


def _short(name: str) -> str:
  """Shortens the fingerprint in an entry's name."""
  return "/".join(f"{part[:12]}..." if len(part) == 64 else part for part in name.split("/"))
