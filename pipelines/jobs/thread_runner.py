"""The runner of jobs whose flags name none, in their thread.

Beam's own local runner translates a pipeline into the format of clusters and encodes each element, which takes two
seconds of a job of a hundred images. Here each step hands its elements to the next one's DoFn. An element that needs a
side input waits until that is complete, and what is grouped until its step's end: the first of them in memory, all more
in a temporary file, so that memory does not grow with the data. Of Beam's primitives it knows those that our jobs use.
"""

from __future__ import annotations

import contextlib
import pickle
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, BinaryIO, cast

import apache_beam as beam
from apache_beam.internal import pickler
from apache_beam.metrics.execution import MetricResult, MetricsContainer
from apache_beam.metrics.metric import MetricResults, MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor
from apache_beam.runners.common import DoFnRunner, Receiver
from apache_beam.runners.runner import PipelineResult, PipelineRunner, PipelineState
from apache_beam.runners.worker import statesampler
from apache_beam.transforms.combiners import curry_combine_fn
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.windowed_value import WindowedValue

Send = Callable[[WindowedValue], None]

_IN_MEMORY = 64  # elements of a step, or of a part of what is grouped
_PARTS = 16


class ThreadRunner(PipelineRunner):
  """Runs a batch pipeline without windows in the calling thread."""

  def run_pipeline(self, pipeline: beam.Pipeline, options: PipelineOptions) -> PipelineResult:
    found = _Primitives()
    pipeline.visit(found)
    metrics, before = _Metrics(), statesampler.get_current_tracker()
    statesampler.set_current_tracker(metrics)
    try:
      with contextlib.ExitStack() as stack:
        _Job(found.steps, stack).run()
    finally:
      statesampler.set_current_tracker(before)
    return _Done(metrics)


class _Primitives(PipelineVisitor):
  """Lists the steps that `_make` knows, producers first."""

  def __init__(self) -> None:
    self.steps: list[AppliedPTransform] = []
    self._within: AppliedPTransform | None = None

  def enter_composite_transform(self, applied: AppliedPTransform) -> None:
    if self._within is None and isinstance(applied.transform, (beam.Create, beam.Reshuffle, beam.CombinePerKey)):
      self._within = applied
      self.steps.append(applied)

  def leave_composite_transform(self, applied: AppliedPTransform) -> None:
    if self._within is applied:
      self._within = None

  def visit_transform(self, applied: AppliedPTransform) -> None:
    if self._within is None:
      self.steps.append(applied)


class _Job:
  """Steps, what they send each other, and the complete side inputs."""

  def __init__(self, steps: list[AppliedPTransform], stack: contextlib.ExitStack):
    self._stack = stack
    self._sides: dict[beam.PCollection, list[Any]] = {
      side.pvalue: [] for applied in steps for side in applied.side_inputs
    }
    self._complete: set[beam.PCollection] = set()
    self._consumers: defaultdict[beam.PCollection, list[_Step]] = defaultdict(list)
    self._steps = [_Step(self, applied) for applied in steps]
    for step in self._steps:
      for collection in step.applied.inputs:
        self._consumers[collection].append(step)

  def run(self) -> None:
    for step in self._steps:  # when it is a step's turn, all that it reads is complete
      step.finish()
      self._complete.update(step.applied.outputs.values())

  def sender(self, collection: beam.PCollection) -> Send:
    """Returns what sends an element to all that read a PCollection."""
    side, consumers = self._sides.get(collection), self._consumers[collection]

    def send(value: WindowedValue) -> None:
      if side is not None:
        side.append(value.value)
      for consumer in consumers:
        consumer.take(value)

    return send

  def is_complete(self, sides: Any) -> bool:
    return all(side.pvalue in self._complete for side in sides)

  def view(self, side: beam.pvalue.AsSideInput) -> Any:
    """Returns a side input as a DoFn sees it."""
    return side._from_runtime_iterable(self._sides[side.pvalue], side._view_options())

  def open(self, applied: AppliedPTransform) -> tuple[Send, Callable[[], None]]:
    """Returns what takes a step's elements, and what ends it."""
    transform = applied.transform
    if isinstance(transform, (beam.Reshuffle, beam.Flatten)):
      return self.sender(applied.outputs[None]), lambda: None
    if isinstance(transform, beam.ParDo):
      return self._open_dofn(applied, transform)
    send = self.sender(applied.outputs[None])
    if isinstance(transform, (beam.Create, beam.Impulse)):
      return send, partial(_create, transform.values if isinstance(transform, beam.Create) else (b"",), send)
    if isinstance(transform, beam.CombinePerKey):
      return _combine(curry_combine_fn(transform.fn, transform.args, transform.kwargs), send, self._stack)
    assert isinstance(transform, beam.GroupByKey), f"{transform} is no step of our jobs"
    return _group(send)

  def _open_dofn(self, applied: AppliedPTransform, transform: beam.ParDo) -> tuple[Send, Callable[[], None]]:
    receivers: defaultdict[str | None, Receiver] = defaultdict(lambda: _Receiver(lambda value: None))
    receivers.update({tag: _Receiver(self.sender(collection)) for tag, collection in applied.outputs.items()})
    views = [_View(self.view(side)) for side in applied.side_inputs]
    runner = DoFnRunner(
      pickler.roundtrip(transform.fn),  # as workers have one of their own
      transform.args,
      transform.kwargs,
      views,
      applied.inputs[0].windowing,
      tagged_receivers=receivers,
    )
    runner.setup()
    self._stack.callback(runner.teardown)
    runner.start()
    return runner.process, runner.finish


class _Waiting:
  """Elements in order; more than a few of them are on disk."""

  def __init__(self) -> None:
    self._first: list[Any] = []
    self._file: BinaryIO | None = None

  def append(self, element: Any) -> None:
    if len(self._first) < _IN_MEMORY:
      self._first.append(element)
      return
    self._file = self._file or cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - `drain` closes it
    pickle.dump(element, self._file, pickle.HIGHEST_PROTOCOL)

  def drain(self) -> Iterator[Any]:
    """Yields all, and forgets them."""
    first, file, self._first, self._file = self._first, self._file, [], None
    yield from first
    if file:
      first.clear()
      with file:
        end = file.tell()
        file.seek(0)
        while file.tell() < end:
          yield pickle.load(file)


class _Step:
  """A step; elements wait until its side inputs are complete."""

  def __init__(self, job: _Job, applied: AppliedPTransform):
    self._job = job
    self.applied = applied
    self._waiting = _Waiting()
    self._opened: tuple[Send, Callable[[], None]] | None = None

  def take(self, value: WindowedValue) -> None:
    if self._opened is None:
      if not self._job.is_complete(self.applied.side_inputs):
        self._waiting.append(value)
        return
      self._opened = self._job.open(self.applied)
    self._opened[0](value)

  def finish(self) -> None:
    if self._opened is None and not self._is_dofn:
      self._opened = self._job.open(self.applied)
    for value in self._waiting.drain():
      self.take(value)
    if self._opened:
      self._opened[1]()
    self._opened = None

  @property
  def _is_dofn(self) -> bool:
    return isinstance(self.applied.transform, beam.ParDo)


class _Receiver(Receiver):
  def __init__(self, send: Send):
    self._send = send

  def receive(self, windowed_value: WindowedValue) -> None:
    self._send(windowed_value)


class _View:
  """A side input, the same in all windows."""

  def __init__(self, value: Any):
    self._value = value

  def is_globally_windowed(self) -> bool:
    return True

  def __getitem__(self, window: Any) -> Any:
    return self._value


def _create(values: Iterable[Any], send: Send) -> None:
  for value in values:
    send(GlobalWindows.windowed_value(value))


def _group(send: Send) -> tuple[Send, Callable[[], None]]:
  parts = [_Waiting() for _ in range(_PARTS)]
  numbers: dict[Any, int] = {}  # of the keys, in the order of their first members

  def take(value: WindowedValue) -> None:
    key, member = value.value
    number = numbers.setdefault(key, len(numbers))
    parts[number % _PARTS].append((key, member))

  def finish() -> None:
    for part in parts:
      groups: defaultdict[Any, list[Any]] = defaultdict(list)
      for key, member in part.drain():
        groups[key].append(member)
      while groups:
        key = next(iter(groups))
        send(GlobalWindows.windowed_value((key, groups.pop(key))))

  return take, finish


def _combine(fn: beam.CombineFn, send: Send, stack: contextlib.ExitStack) -> tuple[Send, Callable[[], None]]:
  accumulators: dict[Any, Any] = {}
  fn.setup()
  stack.callback(fn.teardown)

  def take(value: WindowedValue) -> None:
    key, member = value.value
    accumulator = accumulators[key] if key in accumulators else fn.create_accumulator()
    accumulators[key] = fn.add_input(accumulator, member)

  def finish() -> None:
    for key, accumulator in accumulators.items():
      send(GlobalWindows.windowed_value((key, fn.extract_output(accumulator))))

  return take, finish


class _Metrics(MetricResults):
  """The job's metrics, of all steps together."""

  def __init__(self) -> None:
    self.metrics_container = MetricsContainer("")

  def update_metric(self, name: Any, value: Any) -> None:
    self.metrics_container.get_metric_cell(name).update(value)

  def current_state(self) -> _Metrics:
    return self

  def query(self, filter: MetricsFilter | None = None) -> dict[str, list[MetricResult]]:
    found = self.metrics_container.get_cumulative()
    return {
      kind: list(self._results(values, filter))
      for kind, values in (
        (self.COUNTERS, found.counters),
        (self.DISTRIBUTIONS, found.distributions),
        (self.STRINGSETS, found.string_sets),
      )
    }

  def _results(self, values: dict[Any, Any], filter: MetricsFilter | None) -> Iterator[MetricResult]:
    for key, value in values.items():
      if self.matches(filter, key):
        result = value.get_result() if hasattr(value, "get_result") else value
        yield MetricResult(key, result, result)


class _Done(PipelineResult):
  def __init__(self, metrics: _Metrics):
    super().__init__(PipelineState.DONE)
    self._metrics = metrics

  def wait_until_finish(self, duration: int | None = None) -> str:
    return str(self.state)

  def metrics(self) -> MetricResults:
    return self._metrics
