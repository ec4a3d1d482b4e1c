"""The runner of jobs whose flags name none does what Beam's local runner does, and is what such jobs run on."""

from __future__ import annotations

import gzip
import pickle
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.pipelines.engines.runners import is_by_default
from beam_retrain.pipelines.jobs.thread_runner import ThreadRunner
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images.idx import encode_idx
from beam_retrain.transforms.sources.idx import PlanIdxShards, find_idx_splits


class _Bundled(beam.DoFn):
  """Sends all at the end of the bundle, and the odd ones elsewhere at once."""

  def setup(self) -> None:
    self._of_bundle: list[int] | None = None

  def start_bundle(self) -> None:
    assert self._of_bundle is None
    self._of_bundle = []

  def process(self, number: int, more: int) -> Iterator[Any]:
    assert self._of_bundle is not None
    self._of_bundle.append(number + more)
    Metrics.counter("tests", "numbers").inc()
    Metrics.distribution("tests", "sizes").update(number)
    if number % 2:
      yield beam.pvalue.TaggedOutput("odd", number)

  def finish_bundle(self) -> Iterator[Any]:
    for number in self._of_bundle or ():
      yield beam.transforms.window.GlobalWindows.windowed_value(number)


def _all(root: beam.Pipeline) -> dict[str, beam.PCollection]:
  """Every primitive and combiner of our jobs, also on nothing."""
  numbers = root | beam.Create([3, 1, 2]) | beam.Reshuffle()
  nothing = numbers | "Nothing" >> beam.Filter(lambda number: number > 3)
  keyed = numbers | "Key" >> beam.Map(lambda number: (number % 2 == 0, number))
  total = numbers | "Total" >> beam.CombineGlobally(sum)
  bundled = numbers | beam.ParDo(_Bundled(), beam.pvalue.AsSingleton(total)).with_outputs("odd", main="all")
  sides = (beam.pvalue.AsList(numbers), beam.pvalue.AsDict(keyed | "Sum" >> beam.CombinePerKey(sum)))
  return {
    "bundled": bundled["all"],
    "odd": bundled.odd,
    "sides": root
    | beam.Impulse()
    | "See" >> beam.Map(lambda start, *sides: (start, sorted(sides[0]), sides[1]), *sides),
    "grouped": keyed | beam.GroupByKey() | beam.MapTuple(lambda key, members: (key, sorted(members))),
    "joined": {"a": keyed, "b": keyed}
    | beam.CoGroupByKey()
    | "Sort" >> beam.MapTuple(lambda key, found: (key, sorted(found["a"] + found["b"]))),
    "flat": (numbers, nothing, numbers) | beam.Flatten(),
    "counted": numbers | beam.combiners.Count.PerElement(),
    "count of nothing": nothing | beam.combiners.Count.Globally(),
    "sum of nothing": nothing | "SumNothing" >> beam.CombineGlobally(sum),
    "top": numbers | beam.combiners.Top.Of(2),
    "dict": keyed | beam.combiners.ToDict() | beam.Map(sorted),
    "list of nothing": nothing | "ListNothing" >> beam.combiners.ToList(),
  }


def _run(runner: Any, folder: Path, build: Callable[[beam.Pipeline], dict[str, beam.PCollection]]) -> Any:
  """Returns the elements of each PCollection, sorted, and the job's result."""
  pipeline = beam.Pipeline(runner, options=PipelineOptions(flags=[]))
  for name, collection in build(pipeline).items():
    kept = collection | f"List[{name}]" >> beam.combiners.ToList()
    path = str(folder / name)
    _ = kept | f"Keep[{name}]" >> beam.Map(lambda found, path: Path(path).write_bytes(pickle.dumps(found)), path)
  result = pipeline.run()
  result.wait_until_finish()
  return {path.name: sorted(pickle.loads(path.read_bytes())) for path in folder.iterdir()}, result


def test_every_step_of_our_jobs_gives_what_it_gives_on_beams_runner(tmp_path):
  found = []
  for runner in ("FnApiRunner", ThreadRunner()):
    folder = tmp_path / type(runner).__name__
    folder.mkdir()
    elements, result = _run(runner, folder, _all)
    metrics = result.metrics().query(MetricsFilter().with_namespace("tests"))
    (count,), (sizes,) = metrics["counters"], metrics["distributions"]
    found.append((elements, count.key.metric.name, count.result, sizes.result.count, sizes.result.min))
  assert found[0] == found[1]
  assert len(found[0][0]) == len(_all(beam.Pipeline()))


class _Failing(beam.DoFn):
  def __init__(self, path: Path):
    self._path = str(path)

  def process(self, number: int) -> None:
    raise InputError(f"{number} is wrong.")

  def teardown(self) -> None:
    Path(self._path).touch()


def test_an_error_comes_as_it_was_raised_and_after_teardown(tmp_path):
  with pytest.raises(InputError, match=r"^1 is wrong\.$"), beam.Pipeline(ThreadRunner()) as root:
    _ = root | beam.Create([1, 2]) | beam.ParDo(_Failing(tmp_path / "torn down"))
  assert (tmp_path / "torn down").exists()


@pytest.mark.parametrize(
  ("flags", "expected"),
  [
    ([], True),
    (["--temp_location=/tmp", "--job_name=mine"], True),
    (["--runner=FnApiRunner"], False),
    (["--direct_running_mode=multi_processing", "--direct_num_workers=2"], False),
    (["--environment_type=LOOPBACK"], False),
  ],
)
def test_only_jobs_that_name_no_runner_and_no_workers_run_on_it(flags, expected):
  options = PipelineOptions(flags=flags)
  assert is_by_default(options) is expected


def test_pixels_of_compressed_idx_files_do_not_wait_in_memory(tmp_path):
  """A shard carries its pixels where nobody else can read them; here it names a scratch file while it waits."""
  for name, array in (("images-idx3", np.zeros((10, 4, 3), np.uint8)), ("labels-idx1", np.arange(10, dtype=np.uint8))):
    (tmp_path / f"train-{name}-ubyte.gz").write_bytes(gzip.compress(encode_idx(array)))
  pairs = find_idx_splits(str(tmp_path), ["training"])
  kept = str(tmp_path / "kept")
  with beam.Pipeline(ThreadRunner()) as root:
    pixels = root | PlanIdxShards(pairs) | "Pixels" >> beam.Map(lambda shard: type(shard.inputs[0].pixels).__name__)
    _ = pixels | beam.combiners.ToList() | "Keep" >> beam.Map(lambda found, path: Path(path).write_text(*found), kept)
  assert Path(kept).read_text() == "SpilledBytes"


def test_what_waits_and_what_is_grouped_does_not_fill_the_memory(tmp_path):
  size, count, keys = 10_000, 6_000, 200
  kept = str(tmp_path / "kept")
  tracemalloc.start()
  with beam.Pipeline(ThreadRunner()) as root:
    made = root | beam.Create(range(count)) | "Make" >> beam.Map(lambda number: (number % keys, bytes(size)))
    total = made | "Count" >> beam.combiners.Count.Globally()
    waited = made | "Wait" >> beam.Map(lambda keyed, _: keyed, beam.pvalue.AsSingleton(total))
    sizes = waited | beam.GroupByKey() | "Sizes" >> beam.MapTuple(lambda key, data: (key, sum(map(len, data))))
    found = sizes | beam.combiners.ToList()
    _ = found | "Keep" >> beam.Map(lambda found, path: Path(path).write_bytes(pickle.dumps(found)), kept)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert sorted(pickle.loads(Path(kept).read_bytes())) == [(key, count // keys * size) for key in range(keys)]
  assert peak < count * size / 2
