"""How the trunk is run: threads and processes by the runner's options; a batch given, kept, tried out or halved."""

import dataclasses
import json
import os
import socket

import apache_beam as beam
import grpc
import numpy as np
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_job_api_pb2_grpc
from apache_beam.runners.dataflow.dataflow_runner import DataflowPipelineResult
from apache_beam.runners.portability import portable_runner
from apache_beam.runners.runner import PipelineResult, PipelineState
from PIL import Image as Pillow

from beam_retrain.pipelines.models.batch_size import CANDIDATES, find_batch, keep_batch
from beam_retrain.pipelines.models.execution import (
  choose_execution,
  describe_workers,
  report_halved_batch,
  report_workers,
  worker_processes,
)
from beam_retrain.pipelines.models.trunk_sources import load_trunk, prepare
from beam_retrain.transforms.bottlenecks.embed import EmbedShard
from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.core.models.inference import LoadedModel, load_with_oom_fallback
from beam_retrain.transforms.core.records.shards import Shard
from beam_retrain.transforms.core.run.run_info import RunInfo
from beam_retrain.transforms.core.runtimes.variant import OPENVINO, Variant
from beam_retrain.transforms.core.system.machine import available_cores
from beam_retrain.transforms.shards.work import WorkShards
from beam_retrain.transforms.sources.image_files import ImageFile

_LOCAL = PipelineOptions(flags=["--runner=FnApiRunner"])
_CLUSTER = PipelineOptions(flags=["--runner=FlinkRunner"])


@pytest.mark.parametrize(
  ("flags", "processes"),
  [
    ([], 1),
    (["--runner=DirectRunner", "--direct_num_workers=3"], 1),
    (["--direct_running_mode=multi_threading", "--direct_num_workers=3"], 1),
    (["--direct_running_mode=multi_processing", "--direct_num_workers=3"], 3),
    (["--runner=FnApiRunner", "--direct_running_mode=multi_processing", "--direct_num_workers=0"], 0),
    (["--runner=PrismRunner"], 1),
    (["--runner=FlinkRunner"], 1),
    (["--runner=FlinkRunner", "--sdk_worker_parallelism=4"], 4),
    (["--runner=SparkRunner", "--sdk_worker_parallelism=0"], 0),
    (["--runner=PortableRunner", "--environment_type=LOOPBACK", "--sdk_worker_parallelism=4"], 1),
    (
      [
        *("--runner=PortableRunner", "--environment_type=LOOPBACK", "--sdk_worker_parallelism=4"),
        "--experiments=use_loopback_process_worker=True",
      ],
      4,
    ),
    (["--runner=DataflowRunner"], 0),
    (["--runner=DataflowRunner", "--experiments=no_use_multiple_sdk_containers"], 1),
  ],
)
def test_processes_are_what_the_runner_starts_on_a_machine(flags, processes):
  assert worker_processes(PipelineOptions(flags=flags)) == processes


def test_what_is_said_of_it():
  cores = available_cores()
  two = PipelineOptions(flags=["--direct_running_mode=multi_processing", "--direct_num_workers=2"])
  each = max(1, cores // 2)
  threads = f"{each} thread{'s' * (each > 1)}"
  default = "32 images at a time (the default)"
  assert choose_execution(None, None, two).describe() == f"{default}, 2 processes of {threads}"
  assert choose_execution(8, 1, _LOCAL).describe() == "8 images at a time (as given), 1 process of 1 thread"
  on_each = f"{default}, a worker's cores shared by its 1 process"
  assert choose_execution(None, None, _CLUSTER).describe() == on_each
  assert choose_execution(8, 3, two).to_info() == {
    "batch_size": 8,
    "batch_size_reason": "as given",
    "threads_per_process": 3,
    "processes_per_machine": 2,
  }
  assert choose_execution(None, None, _CLUSTER).to_info()["threads_per_process"] == "cores / processes"


@pytest.fixture(scope="module")
def prepared(tiny_trunk):
  return prepare(load_trunk(str(tiny_trunk)), Variant())


@pytest.fixture
def trunk(prepared, monkeypatch, tmp_path):
  """Nothing is remembered of it yet."""
  monkeypatch.setenv("BEAM_RETRAIN_CACHE_DIR", str(tmp_path / "cache"))
  return prepared


def test_a_large_job_tries_out_once_and_remembers(trunk):
  assert choose_execution(None, None, _LOCAL, trunk).reason == "the default"
  assert find_batch(trunk.info.fingerprint, available_cores()) is None
  assert choose_execution(None, None, _CLUSTER, trunk, is_large=lambda: True).reason == "the default"
  tried = choose_execution(None, None, _LOCAL, trunk, is_large=lambda: True)
  assert tried.batch_size in CANDIDATES
  assert tried.reason == "the fastest of those tried here"
  keep_batch(trunk.info.fingerprint, available_cores(), 16)
  gone = dataclasses.replace(trunk, prepared_folder="/nowhere")  # nothing is loaded again
  assert choose_execution(None, None, _LOCAL, gone, is_large=lambda: True).batch_size == 16
  assert choose_execution(None, None, _LOCAL, gone).batch_size == 32  # small jobs have the default, on any machine
  assert choose_execution(4, None, _LOCAL, gone, is_large=lambda: True).batch_size == 4


def test_a_small_job_has_few_large_images_at_a_time(trunk):
  info = dataclasses.replace(trunk.info.with_variant(Variant(OPENVINO)), input_px=299)
  large = dataclasses.replace(trunk, info=info)
  assert choose_execution(None, 2, _LOCAL, large).batch_size == 4
  assert choose_execution(None, 2, _CLUSTER, large).batch_size == 4  # the same settings on engines


def test_the_choice_of_an_earlier_run_is_kept_so_that_its_shards_are(trunk):
  def earlier(reason, fingerprint=trunk.info.fingerprint):
    settings = {"trunk_fingerprint": fingerprint, "batch_size": 64}
    return RunInfo("bottlenecks", settings=settings, execution={"batch_size_reason": reason})

  keep_batch(trunk.info.fingerprint, available_cores(), 16)
  for reason, fingerprint, batch_size in (
    ("the default", trunk.info.fingerprint, 64),
    ("the fastest of those tried here", trunk.info.fingerprint, 64),
    ("as in the run before", trunk.info.fingerprint, 64),
    ("as given", trunk.info.fingerprint, 16),
    ("the default", "0" * 64, 16),
  ):
    found = choose_execution(None, None, _LOCAL, trunk, earlier=earlier(reason, fingerprint), is_large=lambda: True)
    assert found.batch_size == batch_size, reason
  assert choose_execution(None, None, _LOCAL, trunk, earlier=RunInfo("bottlenecks")).batch_size == 32
  of_0_3_0 = RunInfo("bottlenecks", settings=earlier("").settings)
  assert choose_execution(None, None, _LOCAL, trunk, earlier=of_0_3_0, is_large=lambda: True).batch_size == 64


class _Needy(ImageModelHandler):
  """A trunk that needs more, above two images, than the 2**47 bytes that a process can address."""

  def load_model(self) -> LoadedModel:
    def infer(pixels):
      np.empty(max(0, len(pixels) - 2) << 46)
      return {"bottleneck": pixels.sum((1, 2))}

    def load(batch_size: int) -> LoadedModel:
      return LoadedModel(lambda encoded: np.ones((len(encoded), 8, 8, 3), np.float32), infer)

    self._loads += 1
    return load_with_oom_fallback(load, self.batch_size)


def test_a_batch_that_was_halved_on_a_worker_is_told_and_remembered(trunk, tmp_path):
  inputs = []
  for shade in range(9):
    path = tmp_path / f"{shade}.png"
    Pillow.fromarray(np.full((8, 8), shade, np.uint8)).save(path)
    inputs.append(ImageFile(f"a/{shade}.png", "a", str(path), path.stat().st_size, 0.0))
  output = tmp_path / "out"
  (output / "records" / ".shards").mkdir(parents=True)
  (output / "info.json").write_text('{"stage": "bottlenecks", "execution": {"precision": "float32"}}')
  execution = choose_execution(8, None, _LOCAL)
  root = beam.Pipeline(options=_LOCAL)
  task = EmbedShard(_Needy(str(tmp_path), batch_size=8), ["a"])
  work = WorkShards(task, output=str(output / "records"), request="r")
  _ = root | beam.Create([Shard("training", 0, 1, tuple(inputs))]) | work
  result = root.run()
  result.wait_until_finish()
  told = report_halved_batch(result, execution, trunk, str(output))
  assert told == "not enough memory for 8 images at a time: the trunk ran over 2"
  assert json.loads((output / "info.json").read_text())["execution"] == {
    "precision": "float32",
    "batch_size_halved_to": 2,
  }
  again = choose_execution(None, None, _LOCAL, trunk)
  assert (again.batch_size, again.reason) == (2, "as memory allows")
  assert report_halved_batch(result, again, trunk, str(output)) == ""


def test_which_process_ran_and_loaded_the_trunk_is_kept(trunk, tmp_path):
  shards = []
  for index in range(3):
    path = tmp_path / f"{index}.png"
    Pillow.fromarray(np.full((8, 8), index, np.uint8)).save(path)
    shards.append(Shard("training", index, 3, (ImageFile(f"a/{index}.png", "a", str(path), path.stat().st_size, 0.0),)))
  output = tmp_path / "out"
  (output / "records" / ".shards").mkdir(parents=True)
  (output / "info.json").write_text('{"stage": "bottlenecks"}')
  root = beam.Pipeline(options=_LOCAL)
  task = EmbedShard(_Needy(str(tmp_path), batch_size=2), ["a"])
  _ = root | beam.Create(shards) | WorkShards(task, output=str(output / "records"), request="r")
  result = root.run()
  result.wait_until_finish()
  assert report_workers(result, str(output)) == ""  # one process: nothing to tell
  assert json.loads((output / "info.json").read_text())["execution"] == {
    "workers": {f"{socket.gethostname()}/{os.getpid()}": {"pictures": 3, "loads": 1}}
  }


def test_how_the_work_was_spread_is_said_in_a_sentence():
  images = {"a/1": 1041, "b/1": 756}
  assert describe_workers(images, {"a/1": 1, "b/1": 1}) == (
    "2 workers ran the trunk over 756 to 1,041 images each; each loaded it once"
  )
  assert describe_workers(images, {"a/1": 3, "b/1": 1}) == (
    "2 workers ran the trunk over 756 to 1,041 images each; they loaded it 4 times"
  )


def test_a_runner_that_has_no_metrics_does_not_end_a_job_that_is_done(trunk, tmp_path):
  with grpc.insecure_channel("127.0.0.1:1") as nobody_listens:
    job_service = beam_job_api_pb2_grpc.JobServiceStub(nobody_listens)
    for result, answer in (
      (PipelineResult(PipelineState.DONE), NotImplementedError),  # as Dask's
      (portable_runner.PipelineResult(job_service, "job", iter([]), iter([])), grpc.RpcError),
      (DataflowPipelineResult(None, None), None),
    ):
      if answer is None:
        assert result.metrics() is None
      else:
        with pytest.raises(answer):
          result.metrics()
      assert report_halved_batch(result, choose_execution(8, None, _LOCAL), trunk, str(tmp_path)) == ""
      assert report_workers(result, str(tmp_path)) == ""
