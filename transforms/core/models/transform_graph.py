"""The folder of tensorflow-transform, filled in from a template without TensorFlow.

For a number of dimensions and of labels it is always the same graph: only the means and variances, the name of the
label table and the labels themselves differ, and their places have a fixed length.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from beam_retrain.transforms.core.models.farmhash import fingerprint64
from beam_retrain.transforms.core.models.moments import Moments
from beam_retrain.transforms.core.records.example import varint

GRAPH, FINGERPRINT, VOCABULARY = (
  f"transform_fn/{name}" for name in ("saved_model.pb", "fingerprint.pb", "assets/labels")
)
_FOLDER, _PROGRAM, _NUMBERS = "transform", "program.pb", "numbers"


def table_name(labels: Sequence[str]) -> bytes:
  """Returns the name of the graph's label table, 64 bytes."""
  return hashlib.sha256("\n".join(labels).encode()).hexdigest().encode()


@dataclasses.dataclass(frozen=True)
class TransformTemplate:
  """A folder for made-up bottlenecks."""

  # Relative path -> contents; of the fingerprint, what is the same for all numbers and labels
  files: Mapping[str, bytes]
  program: bytes  # the part of the graph that the fingerprint is of, see `transform_template.py`
  numbers: bytes  # its means, then variances, as in the graph
  labels: Sequence[str]  # the made-up ones

  @classmethod
  def read(cls, folder: str, labels: Sequence[str]) -> TransformTemplate:
    root = Path(folder, _FOLDER)
    files = {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
    return cls(files, Path(folder, _PROGRAM).read_bytes(), Path(folder, _NUMBERS).read_bytes(), labels)

  def write(self, folder: str) -> None:
    for name, data in self.files.items():
      path = Path(folder, _FOLDER, name)
      os.makedirs(path.parent, exist_ok=True)
      path.write_bytes(data)
    Path(folder, _PROGRAM).write_bytes(self.program)
    Path(folder, _NUMBERS).write_bytes(self.numbers)

  def fill(self, moments: Moments, labels: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yields relative path and contents of each file."""
    graph, program = (self._fill(data, moments, labels) for data in (self.files[GRAPH], self.program))
    uuid = str(int.from_bytes(hashlib.sha256(graph).digest()[:16], "big")).encode()  # TensorFlow's own is random
    hashes = b"\x08" + varint(fingerprint64(graph)) + b"\x10" + varint(fingerprint64(program))
    others = {
      GRAPH: graph,
      FINGERPRINT: hashes + self.files[FINGERPRINT] + b"\x3a" + varint(len(uuid)) + uuid,
      VOCABULARY: "".join(f"{label}\n" for label in labels).encode(),
    }
    yield from {**self.files, **others}.items()

  def _fill(self, data: bytes, moments: Moments, labels: Sequence[str]) -> bytes:
    half = len(self.numbers) // 2
    for old, new in (
      (self.numbers[:half], moments.mean.astype("<f4").tobytes()),
      (self.numbers[half:], moments.variance.astype("<f4").tobytes()),
      (table_name(self.labels), table_name(labels)),
    ):
      if len(old) != len(new) or old not in data:
        raise ValueError(f"the transform graph has no place for {len(new)} bytes like {old[:8]!r}")
      data = data.replace(old, new)
    return data
