"""Runs a task over shards; writes a file and a report each.

Name and bytes of a file depend on the shard alone. It appears by a rename, and the report beside it records what made
it: this gives determinism, resume and safe retries.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

import apache_beam as beam
from apache_beam.metrics import Metrics

from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.schema import REPORTS_FOLDER
from beam_retrain.transforms.core.records.shards import WRITTEN, Shard, ShardReport
from beam_retrain.transforms.core.system.locks import Claim, claim_of
from beam_retrain.transforms.core.system.small_files import RUN_AGAIN, DamagedInputError, read_small
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.kinds import KIND, join_kind
from beam_retrain.transforms.shards.progress import METRICS_NAMESPACE, LiveCounts, RecordPlanned, delete_live_counts


class Written(NamedTuple):
  """A record; `payload` is appended to the shard's file."""

  label: str
  payload: bytes


class ShardTask(abc.ABC):
  """The work on one shard.

  Tasks are pickled to the workers: keep them small and open resources in `setup`.
  """

  suffix = "tfrecord"

  @property
  def writes_file(self) -> bool:
    """Whether shards have files, not only reports."""
    return True

  @property
  def counts_images(self) -> bool:
    """Whether each planned image is yielded once; else progress has no total."""
    return True

  def setup(self) -> None:  # noqa: B027 - optional
    """Called once per DoFn instance, before the first shard."""

  def kind(self) -> str:
    """Returns this machine's kind, if it decides bits; else ""."""
    return ""

  @abc.abstractmethod
  def work(self, shard: Shard) -> Iterator[Written | Quarantined]:
    """Yields one item for each image of the shard, in order."""

  def extra(self) -> Mapping[str, Any]:
    """Returns further JSON entries of the report; called after each shard."""
    return {}


@dataclasses.dataclass(eq=False, repr=False)
class WorkShards(beam.PTransform):
  """Writes one file per shard: PCollection[Shard] -> PCollection[ShardReport].

  A finished shard with the same inputs and request is kept, so that a killed run can resume.
  """

  task: ShardTask
  _: dataclasses.KW_ONLY
  output: str  # folder of the shard files; the reports go to `.shards` in it
  request: str  # digest of everything but the inputs that determines the bytes: settings, trunk, preprocessing
  checked: beam.PCollection | None = None  # computed before any work starts
  earlier: Sequence[str] = ()  # outputs of earlier runs, whose shards with the same inputs and request are copied

  def __post_init__(self) -> None:
    super().__init__()

  def expand(self, shards: beam.PCollection) -> beam.PCollection:
    files.make_folder(files.join(self.output, REPORTS_FOLDER))  # workers check that they see it
    sides: list[beam.pvalue.AsSideInput] = []
    if self.checked is not None:
      sides.append(beam.pvalue.AsList(self.checked))
    if files.is_local(self.output) and self.task.counts_images:
      sides.append(beam.pvalue.AsSingleton(shards | "RecordPlanned" >> RecordPlanned(self.output)))
    return (
      shards
      | "SpreadShards" >> beam.Reshuffle()
      # Shard
      | "WorkShard" >> beam.ParDo(_WorkShard(self.task, claim_of(self.output), self.request, self.earlier), *sides)
    )  # ShardReport


@dataclasses.dataclass(eq=False)
class _WorkShard(beam.DoFn):
  task: ShardTask
  claim: Claim
  request: str
  earlier: Sequence[str]

  @property
  def output(self) -> str:
    return self.claim.folder

  def setup(self) -> None:
    self._kind: str | None = None
    self.task.setup()

  # `*_` has no annotation: Beam takes one for the type of the whole tuple.
  def process(self, shard: Shard, *_) -> Iterator[ShardReport]:  # type: ignore[no-untyped-def]
    files.check_seen(files.join(self.output, REPORTS_FOLDER))
    self.claim.check(files.read_bytes)  # the command may have been killed, and another one begun
    if self._kind is None:
      if kind := self.task.kind():
        join_kind(self.claim, kind)
      self._kind = kind
    digest = shard.digest(self.request)
    name = shard.name(self.task.suffix)
    report = self._kept(self.output, name, digest) or self._copy(name, digest)
    Metrics.counter(METRICS_NAMESPACE, "shards_kept" if report else "shards_worked").inc()
    report = report or self._work(shard, name, digest)
    # The list of written files stays on disk: the reports of a job are held together in memory.
    yield dataclasses.replace(report, extra={key: value for key, value in report.extra.items() if key != WRITTEN})

  def _kept(self, folder: str, name: str, digest: str) -> ShardReport | None:
    """Returns the report of a finished shard, else None.

    It must be of this machine's kind, or of an unknown one; a task that only copies takes all.
    """
    report = read_report(folder, name, digest, self.task.writes_file)
    is_other = report and self._kind and report.extra.get(KIND, self._kind) != self._kind
    return None if is_other else report

  def _copy(self, name: str, digest: str) -> ShardReport | None:
    """Copies the shard from an earlier run, if there is one."""
    for folder in self.earlier:
      if report := self._kept(folder, name, digest):
        copy_shard(folder, self.output, report, self.task.writes_file)
        return report
    return None

  def _open(self, name: str) -> contextlib.AbstractContextManager[BinaryIO]:
    if self.task.writes_file:
      return files.write_atomically(files.join(self.output, name))
    return contextlib.nullcontext(io.BytesIO())  # such a task's payloads are empty

  def _work(self, shard: Shard, name: str, digest: str) -> ShardReport:
    checksum = hashlib.sha256()
    size_bytes = 0
    labels: Counter[str] = Counter()
    quarantined: list[Quarantined] = []
    shard = shard.begun()
    with self._open(name) as file, contextlib.closing(LiveCounts(self.output, name)) as live:
      for item in self.task.work(shard):
        if isinstance(item, Quarantined):
          quarantined.append(item)
          live.quarantined(item.reason)
          continue
        file.write(item.payload)
        checksum.update(item.payload)
        size_bytes += len(item.payload)
        labels[item.label] += 1
        live.written()
      self.claim.check(files.read_bytes)
    report = ShardReport(
      file=name,
      split=shard.split,
      inputs=labels.total() + len(quarantined),
      outputs=labels.total(),
      size_bytes=size_bytes,
      sha256=checksum.hexdigest(),
      digest=digest,
      labels=dict(sorted(labels.items())),
      quarantined=tuple(quarantined),
      extra={
        **self.task.extra(),
        **({KIND: self._kind} if self._kind else {}),
        **(shard.corrections.to_extra() if shard.corrections else {}),
      },
    )
    files.write_text(report_path(self.output, name), report.to_json())
    delete_live_counts(self.output, name)
    return report


def report_path(output: str, name: str) -> str:
  return files.join(output, REPORTS_FOLDER, f"{name}.json")


def copy_shard(source: str, output: str, report: ShardReport, writes_file: bool = True) -> None:
  """Copies a finished shard to another folder, with `report`."""
  if writes_file:
    files.write_bytes(files.join(output, report.file), files.read_bytes(files.join(source, report.file)))
  files.write_text(report_path(output, report.file), report.to_json())


def read_report_of(shard_path: str) -> ShardReport:
  """Returns the report of a finished shard."""
  return read_report_file(report_path(*files.split(shard_path)))


def read_report_file(path: str) -> ShardReport:
  return read_small(path, lambda data: ShardReport.from_json(data.decode()), RUN_AGAIN, files.read_bytes)


def read_report(output: str, name: str, digest: str, writes_file: bool = True) -> ShardReport | None:
  """Returns the report of an intact shard with this digest, else None."""
  path, shard_path = report_path(output, name), files.join(output, name)
  if not files.exists(path) or (writes_file and not files.exists(shard_path)):
    return None
  try:
    report = read_report_file(path)
  except DamagedInputError:  # counts as missing
    return None
  # An unreadable file may have been repaired since, without a new size or time.
  if report.digest != digest or any(entry.reason == Reason.UNREADABLE for entry in report.quarantined):
    return None
  written = files.read_bytes(shard_path) if writes_file else b""
  is_intact = report.sha256 == hashlib.sha256(written).hexdigest()
  return report if is_intact and _has_written(output, report) else None


def _has_written(output: str, report: ShardReport) -> bool:
  """Whether a shard's further files are intact; remote ones by size."""
  entries = report.extra.get(WRITTEN, ())
  parent, _ = files.split(output)
  paths = [
    files.join(parent, path.removeprefix("../")) if path.startswith("../") else files.join(output, path)
    for path, *_ in entries
  ]
  if files.sizes(paths) != [size_bytes for _, size_bytes, _ in entries]:
    return False
  return not files.is_local(output) or all(
    files.sha256(path) == sha256 for path, (*_, sha256) in zip(paths, entries, strict=True)
  )
