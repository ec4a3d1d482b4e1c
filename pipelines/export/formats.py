"""Writes tables as Parquet, npz or CSV, in batches.

The same table gives the same bytes. A file appears when it is whole.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from beam_retrain.pipelines.export.tables import Cells, Kind, Table
from beam_retrain.transforms.core.records.csv_format import csv_text, escape_cell
from beam_retrain.transforms.io import files

_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # of all files in the archive: zip has no earlier date


def write_parquet(table: Table, path: str) -> int:
  """Writes a row group per batch; returns the number of rows."""
  import pyarrow as pa
  import pyarrow.parquet as pq

  types = {
    Kind.TEXT: pa.string(),
    Kind.COUNT: pa.int64(),
    Kind.RATE: pa.float64(),
    Kind.NUMBER: pa.float64(),
    Kind.FLAG: pa.bool_(),
    Kind.VECTOR: pa.list_(pa.float32(), table.dimensions or 1),
  }
  schema = pa.schema([(name, types[kind]) for name, kind in table.columns.items()])
  texts = [name for name, kind in table.columns.items() if kind is Kind.TEXT]
  rows = 0

  def array(cells: Cells, kind: Kind) -> Any:
    if kind is Kind.VECTOR:
      return pa.FixedSizeListArray.from_arrays(pa.array(np.asarray(cells).ravel()), table.dimensions)
    return pa.array(cells, types[kind])

  with files.write_atomically(path) as file, pq.ParquetWriter(file, schema, use_dictionary=texts) as writer:
    for batch in table.read():
      arrays = [array(cells, kind) for cells, kind in zip(batch, table.columns.values(), strict=True)]
      writer.write_batch(pa.record_batch(arrays, schema=schema))
      rows += len(batch[0])
  return rows


def write_csv(table: Table, path: str) -> int:
  """Writes a CSV file, UTF-8; returns the number of rows.

  Numbers of vectors have columns of their own, 0 to D-1. Texts are escaped as in all CSV files of beam-retrain.
  """
  names = [
    str(name)
    for column, kind in table.columns.items()
    for name in (range(table.dimensions) if kind is Kind.VECTOR else [column])
  ]
  rows = 0
  with files.write_atomically(path) as file:
    file.write(csv_text([names]).encode())
    for batch in table.read():
      columns = [_csv_cells(cells, kind) for cells, kind in zip(batch, table.columns.values(), strict=True)]
      file.write(csv_text([cell for cells in row for cell in cells] for row in zip(*columns, strict=True)).encode())
      rows += len(batch[0])
  return rows


def _csv_cells(cells: Cells, kind: Kind) -> Iterator[Sequence[object]]:
  """Yields a column's cells of each row; several of a vector."""
  if isinstance(cells, np.ndarray):
    yield from (vector.astype(str).tolist() for vector in cells)  # as short as gives the same float32 again
  else:
    for cell in cells:
      yield ["" if cell is None else escape_cell(str(cell)) if kind is Kind.TEXT else cell]


def write_npz(table: Table, path: str) -> int:
  """Writes arrays for `numpy.load`; returns the number of rows.

  Unknown texts are empty, counts and flags (int8) -1, rates NaN. Reads the table twice, first for the texts' lengths,
  and holds the arrays on the local disk until they are packed.
  """
  rows, lengths = 0, dict.fromkeys(table.columns, 1)
  for batch in table.read():
    rows += len(batch[0])
    for (name, kind), cells in zip(table.columns.items(), batch, strict=True):
      if kind is Kind.TEXT:
        lengths[name] = max(lengths[name], *(len(str(cell)) for cell in cells if cell is not None), 1)
  types = {name: _array_type(kind, lengths[name]) for name, kind in table.columns.items()}
  with tempfile.TemporaryDirectory(prefix="beam-retrain-export-") as folder:
    paths = {name: Path(folder, f"{name}.npy") for name in table.columns}
    _write_arrays(table, rows, types, paths)
    with files.write_atomically(path) as file, zipfile.ZipFile(file, "w") as archive:
      for name, array in paths.items():
        with (
          array.open("rb") as source,
          archive.open(zipfile.ZipInfo(f"{name}.npy", _LONG_AGO), "w", force_zip64=True) as target,
        ):
          shutil.copyfileobj(source, target, 1 << 20)
  return rows


def _array_type(kind: Kind, length: int) -> np.dtype:
  if kind is Kind.TEXT:
    return np.dtype(f"<U{length}")
  return np.dtype({Kind.COUNT: "<i8", Kind.FLAG: "i1", Kind.VECTOR: "<f4"}.get(kind, "<f8"))


def _write_arrays(table: Table, rows: int, types: Mapping[str, np.dtype], paths: Mapping[str, Path]) -> None:
  with contextlib.ExitStack() as stack:
    arrays: dict[str, BinaryIO] = {}
    for name, kind in table.columns.items():
      arrays[name] = stack.enter_context(paths[name].open("wb"))
      shape = (rows, table.dimensions) if kind is Kind.VECTOR else (rows,)
      header = {"descr": np.lib.format.dtype_to_descr(types[name]), "fortran_order": False, "shape": shape}
      np.lib.format.write_array_header_1_0(arrays[name], header)
    for batch in table.read():
      for (name, kind), cells in zip(table.columns.items(), batch, strict=True):
        unknown = {Kind.TEXT: "", Kind.COUNT: -1, Kind.FLAG: -1}.get(kind, np.nan)
        values = cells if kind is Kind.VECTOR else [unknown if cell is None else cell for cell in cells]
        arrays[name].write(np.asarray(values, types[name]).tobytes())


FORMATS: Mapping[str, Callable[[Table, str], int]] = {"parquet": write_parquet, "npz": write_npz, "csv": write_csv}
"""Name, which is the files' extension -> writer."""
