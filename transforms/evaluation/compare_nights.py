"""Compares tonight's predictions with earlier ones and counts slices.

Rows are grouped by buckets of keys, as many as there are shards; all rows of a file in one bucket are shuffled as one
packed element. The changes of all buckets are merged into the CSVs by one worker, which unpacks one row of each at a
time.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import heapq
import io
import itertools
import operator
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import apache_beam as beam

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.metrics import comparison
from beam_retrain.transforms.core.metrics.comparison import (
  BASELINE,
  CHANGE_TYPES,
  REFERENCE,
  Bucket,
  Change,
  Comparison,
  Plan,
)
from beam_retrain.transforms.core.metrics.figures import (
  ColumnSlices,
  ComparisonResult,
  PooledSlices,
  ShownImage,
  SliceFigures,
)
from beam_retrain.transforms.core.metrics.predictions import Row, read_part, read_predictions, row_of
from beam_retrain.transforms.core.records.csv_format import csv_line, csv_text, escape_cell
from beam_retrain.transforms.core.records.shards import ShardReport
from beam_retrain.transforms.core.records.slice_manifest import ManifestRow, read_columns, read_manifest
from beam_retrain.transforms.core.records.splits import stable_hash
from beam_retrain.transforms.core.system.prefetch import batched
from beam_retrain.transforms.io import files

PARTS_FOLDER = ".parts"
CHANGES_FILES = tuple(f"{kind}.csv" for kind in CHANGE_TYPES)
SLICES_FILE = "slices.csv"
MAX_SHOWN = 60

_SLICES_HEADER = "model,column,kind,value,pictures,correct,accuracy,accuracy_low,accuracy_high\n"
_SALT = b"beam-retrain-compare-1:"
_ROWS_HELD = 50_000  # held in memory while a file is packed

_TONIGHT = "tonight"
_UNSCORED = "unscored"
_MANIFEST = "manifest"

Packed = tuple[str, bytes]
"""Kind of the rows, and the rows as gzipped CSV."""


class Compared(NamedTuple):
  """Counts and changes (kind -> packed rows per bucket) of some buckets."""

  counts: Comparison
  changes: Mapping[str, Sequence[bytes]]


@dataclasses.dataclass(frozen=True)
class NightsCompared:
  """The comparison of all models.

  `comparison` (by model) is empty with `slices_only`, `reference` without one, `slices` (by model and column) without a
  manifest. `images` has at most `MAX_SHOWN` of `regressed` and of `fixed`, as many of each model, the highest
  confidence first.
  """

  comparison: Mapping[str, ComparisonResult] = dataclasses.field(default_factory=dict)
  reference: Mapping[str, ComparisonResult] = dataclasses.field(default_factory=dict)
  slices: Mapping[str, Mapping[str, ColumnSlices]] = dataclasses.field(default_factory=dict)
  images: Mapping[str, Sequence[ShownImage]] = dataclasses.field(default_factory=dict)


class CompareNights(beam.PTransform):
  """Writes `CHANGES_FILES` and, with a manifest, `SLICES_FILE`.

  PCollection[ShardReport] of `EvaluateShard` -> PCollection of one `NightsCompared`.

  Attributes:
    output: of the evaluation, with the shards' predictions in `PARTS_FOLDER`.
    models: names; the first is compared with the baseline, the others with the first.
    baseline: path of a `predictions.csv`; `baseline_name` is shown instead.
    reference: name and path of another one, which all models are compared with besides.
    min_slice_size: slices of fewer images are pooled.
    slices_only: writes only `SLICES_FILE`.

  Raises:
    InputError: baseline, reference or manifest cannot be read; from the job: it is damaged, or of other images.
  """

  def __init__(
    self,
    *,
    output: str,
    models: Sequence[str],
    baseline: str | None = None,
    baseline_name: str | None = None,
    reference: tuple[str, str] | None = None,
    manifest: str | None = None,
    min_slice_size: int = 30,
    slices_only: bool = False,
  ):
    super().__init__()
    self._output = output
    reference_name, reference_path = reference or (None, None)
    self._before = {BASELINE: baseline, REFERENCE: reference_path}
    self._min_slice_size = min_slice_size
    self._slices_only = slices_only
    # Reports errors in the first lines before any worker starts.
    for kind, path in self._before.items():
      if path is not None:
        next(_read_before(path, kind), None)
    columns = read_columns(files.read_lines(manifest), manifest) if manifest is not None else ()
    name = (baseline_name or baseline) if baseline is not None else None
    self._plan = Plan(tuple(models), name, manifest, columns, reference_name)

  def expand(self, reports: beam.PCollection) -> beam.PCollection:
    buckets = beam.pvalue.AsSingleton(reports | "CountParts" >> beam.combiners.Count.Globally())
    packed = [reports | "PackPart" >> beam.FlatMap(_pack_part, self._output, buckets)]
    for kind, path in {**self._before, _MANIFEST: self._plan.manifest}.items():
      if path is not None:
        start = reports.pipeline | f"Start[{kind}]" >> beam.Create([path])
        packed.append(start | f"Pack[{kind}]" >> beam.FlatMap(_pack_file, kind, buckets))
    return (
      packed
      | "Flatten" >> beam.Flatten()
      # (bucket, Packed)
      | "GroupByBucket" >> beam.GroupByKey()
      | "CompareBucket" >> beam.Map(_compare_bucket, self._plan)
      # Compared
      | "MergeBuckets" >> beam.CombineGlobally(_merge)
      | "WriteChanges" >> beam.Map(_write, self._plan, self._output, self._min_slice_size, self._slices_only)
    )  # NightsCompared


def _pack_part(report: ShardReport, output: str, buckets: int) -> Iterator[tuple[int, Packed]]:
  rows = read_part(files.read_lines(files.join(output, PARTS_FOLDER, report.file)))
  yield from _pack(_TONIGHT, ((*row_of(cells), model) for model, cells in rows), buckets)
  yield from _pack(_UNSCORED, ([escape_cell(entry.key)] for entry in report.quarantined), buckets)


def _pack_file(path: str, kind: str, buckets: int) -> Iterator[tuple[int, Packed]]:
  if kind != _MANIFEST:
    return _pack(kind, _read_before(path, kind), buckets)
  rows = read_manifest(files.read_lines(path), path)
  return _pack(kind, ((row.key, str(row.line), *row.values) for row in rows), buckets)


def _read_before(path: str, kind: str) -> Iterator[Row]:
  remedy = f"give another --{kind}" + (", or --baseline none" if kind == BASELINE else "")
  try:
    for row in read_predictions(files.read_lines(path), path):
      if not _is_percent(row.confidence):
        raise InputError(
          f"{path}: {row.confidence!r} of {row.key!r} is not a confidence, so the file is damaged: {remedy}."
        )
      yield row
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise InputError(f"{path} cannot be read as predictions ({error}): {remedy}.") from error


def _is_percent(text: str) -> bool:
  try:
    return 0 <= float(text) <= 100
  except ValueError:
    return False


def _pack(kind: str, rows: Iterable[Sequence[str]], buckets: int) -> Iterator[tuple[int, Packed]]:
  """Yields (bucket, packed rows); rows begin with the key."""
  for batch in batched(rows, _ROWS_HELD):
    by_bucket: defaultdict[int, list[Sequence[str]]] = defaultdict(list)
    for row in batch:
      by_bucket[stable_hash(row[0], _SALT) % buckets].append(row)
    for bucket, members in by_bucket.items():
      yield bucket, (kind, _squeeze(members))


def _squeeze(rows: Iterable[Sequence[str]]) -> bytes:
  return gzip.compress(csv_text(rows).encode(), compresslevel=1, mtime=0)


def _expand(squeezed: bytes) -> Iterator[list[str]]:
  with gzip.open(io.BytesIO(squeezed), "rt", encoding="utf-8", newline="") as text:
    yield from csv.reader(text)


def _compare_bucket(bucket_packed: tuple[int, Iterable[Packed]], plan: Plan) -> Compared:
  tonight: dict[str, list[Row]] = {model: [] for model in plan.models}
  rows: dict[str, list[list[str]]] = {kind: [] for kind in (_UNSCORED, BASELINE, REFERENCE, _MANIFEST)}
  for kind, squeezed in bucket_packed[1]:
    if kind == _TONIGHT:
      for *cells, model in _expand(squeezed):
        tonight[model].append(Row(*cells))
    else:
      rows[kind].extend(_expand(squeezed))
  bucket = Bucket(
    tonight,
    [Row(*cells) for cells in rows[BASELINE]],
    [ManifestRow(int(line), key, tuple(values)) for key, line, *values in rows[_MANIFEST]],
    [key for (key,) in rows[_UNSCORED]],
    [Row(*cells) for cells in rows[REFERENCE]],
  )
  counts, changes = comparison.compare(bucket, plan)
  return Compared(counts, {kind: [_squeeze(listed)] for kind, listed in changes._asdict().items() if listed})


def _merge(parts: Iterable[Compared]) -> Compared:
  parts = list(parts)
  changes = {kind: [squeezed for part in parts for squeezed in part.changes.get(kind, ())] for kind in CHANGE_TYPES}
  return Compared(comparison.merge(part.counts for part in parts), changes)


def _write(compared: Compared, plan: Plan, output: str, min_slice_size: int, slices_only: bool) -> NightsCompared:
  comparison.check(compared.counts, plan)
  result = NightsCompared()
  if not slices_only:
    shown = {kind: _write_changes(kind, compared.changes[kind], output) for kind in CHANGE_TYPES}
    images = {kind: shown[kind] for kind in ("regressed", "fixed")}
    reference = comparison.extract(compared.counts, plan, REFERENCE) if plan.reference is not None else {}
    result = NightsCompared(comparison.extract(compared.counts, plan), reference, images=images)
  if plan.manifest is None:
    return result
  slices = comparison.extract_slices(compared.counts, plan, min_slice_size)
  files.write_text(files.join(output, SLICES_FILE), slices_csv(slices))
  return dataclasses.replace(result, slices=slices)


def _write_changes(kind: str, buckets: Sequence[bytes], output: str) -> list[ShownImage]:
  """Writes one of `CHANGES_FILES`; returns its images to show."""
  change_type = CHANGE_TYPES[kind]
  sorted_changes = [(change_type(*cells) for cells in _expand(squeezed)) for squeezed in buckets]
  with files.write_atomically(files.join(output, f"{kind}.csv")) as file:

    def written() -> Iterator[Change]:
      for change in heapq.merge(*sorted_changes, key=comparison.order):
        file.write(csv_line(change).encode())
        if isinstance(change, Change):
          yield change

    file.write(csv_line(change_type._fields).encode())
    return _choose_shown(written())


def _choose_shown(changes: Iterable[Change]) -> list[ShownImage]:
  """Chooses the images to show; the changes are grouped by model."""

  def rank(change: Change) -> tuple[float, str, str]:
    return -float(change.confidence), change.file_name, change.model

  # Takes turns between the models, so that a poor candidate does not fill the list.
  places: list[tuple[int, Change]] = []
  for _, model_changes in itertools.groupby(changes, key=operator.attrgetter("model")):
    places += enumerate(heapq.nsmallest(MAX_SHOWN, model_changes, key=rank))
  places.sort(key=lambda entry: (entry[0], rank(entry[1])))
  return [
    ShownImage(
      change.model,
      change.file_name,
      change.actual_digit,
      change.predicted_digit,
      float(change.confidence),
      baseline_predicted=change.baseline_digit,
      baseline_confidence=float(change.baseline_confidence),
      edited=change.edited == str(True),
    )
    for change in sorted((change for _, change in places[:MAX_SHOWN]), key=rank)
  ]


def slices_csv(slices: Mapping[str, Mapping[str, ColumnSlices]]) -> str:
  """Returns `slices.csv`: one line per slice, the pooled and unlisted last."""
  lines = [_SLICES_HEADER]
  for model, columns in slices.items():
    for column, slices_of in columns.items():
      rows: list[tuple[str, str, SliceFigures | PooledSlices]] = [
        ("value", escape_cell(value), figures) for value, figures in slices_of.values.items()
      ]
      rows += [("small", "", slices_of.small)] if slices_of.small else []
      rows += [("unlisted", "", slices_of.unlisted)] if slices_of.unlisted else []
      for kind, value, figures in rows:
        rates = [f"{rate:.6f}" for rate in (figures.accuracy, *figures.interval)]
        counts = [str(figures.images), str(figures.correct)]
        lines.append(csv_line([model, escape_cell(column), kind, value, *counts, *rates]))
  return "".join(lines)
