"""The flags of `cache`."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from beam_retrain.transforms.core.run.flags import option, positive_number
from beam_retrain.transforms.core.run.request import Request

_DESCRIPTION = """\
Shows the trunks that are prepared for this machine, each for a runtime and a precision, and what was measured with
them. The next job starts sooner with them, and makes anew what is missing.

  beam-retrain cache
  beam-retrain cache --clear --older_than 30

It is in ~/.cache/beam-retrain, or where BEAM_RETRAIN_CACHE_DIR or XDG_CACHE_HOME say. What a running command uses
stays."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheRequest(Request):
  command: ClassVar[str] = "cache"
  module: ClassVar[str] = "beam_retrain.pipelines.models.cache_command"
  description: ClassVar[str] = _DESCRIPTION

  clear: bool = option(False, "remove all that no running command uses")
  older_than: float | None = option(
    None, "with --clear: only what was not used for so long", type=positive_number, metavar="DAYS"
  )
