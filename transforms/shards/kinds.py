"""Keeps an output to machines whose results have the same bits.

A machine's kind is a precision and the instructions that compute it: `bfloat16-AVX512_CORE_AMX`.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import REPORTS_FOLDER
from beam_retrain.transforms.core.records.shards import ShardReport
from beam_retrain.transforms.core.runtimes.variant import FLOAT32, ISA_LIMIT, kind_of
from beam_retrain.transforms.core.system.local_files import TEMPORARY
from beam_retrain.transforms.core.system.locks import Claim
from beam_retrain.transforms.io import files

KIND = "kind"
"""Entry of a shard's report: its machine's kind."""
_PREFIX = "kind-"


def join_kind(claim: Claim, kind: str) -> None:
  """States this machine's kind before its first shard of a job.

  Each writes its own before it looks for others: of two kinds that meet, at least one sees the other. Raises InputError
  if there is another.
  """
  folder, suffix = files.join(claim.folder, REPORTS_FOLDER), f"{TEMPORARY}{claim.token[:16]}"
  own = files.join(folder, f"{_PREFIX}{kind}{suffix}")
  if not files.exists(own):
    files.write_text(own, platform.node())
  for path in files.find_in(folder, f"{_PREFIX}*{suffix}"):
    if path != own:
      other = path.rsplit("/", 1)[-1].removeprefix(_PREFIX).removesuffix(suffix)
      host = files.read_bytes(path).decode()
      raise InputError(_refusal(f"the worker on {platform.node()}", kind, f"the one on {host}", other))


def check_kinds(reports: Iterable[ShardReport]) -> None:
  """Raises InputError if the shards of an output are of several kinds."""
  files_of = {report.extra[KIND]: f"the worker of {report.file}" for report in reports if KIND in report.extra}
  if len(files_of) > 1:
    (kind, file), (other, other_file), *_ = sorted(files_of.items())
    raise InputError(_refusal(file, kind, other_file, other))


def delete_kinds(folder: str) -> None:
  """Deletes what workers have stated, at the end of a job."""
  files.delete(files.find_in(files.join(folder, REPORTS_FOLDER), f"{_PREFIX}*{TEMPORARY}*"))


def _refusal(worker: str, kind: str, other_worker: str, other: str) -> str:
  (precision, found), (_, other_found) = kind.split("-", 1), other.split("-", 1)
  remedies = ["give --precision float32"] if precision != FLOAT32 else []
  if kind_of(FLOAT32, found) != kind_of(FLOAT32, other_found):
    remedies.append(f"start all workers with {ISA_LIMIT}=AVX2 in their environment")
  return (
    f"{worker} computes {precision} with {found}, {other_worker} with {other_found}, and the bits of their results may"
    f" differ: {', and '.join(remedies)}; or use machines of one kind."
  )
