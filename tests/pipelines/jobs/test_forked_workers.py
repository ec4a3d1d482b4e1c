"""Who gets forked worker processes; what they do is tested with `run_pipeline` and with `convert`."""

from __future__ import annotations

import threading

import pytest

from beam_retrain.pipelines.jobs import forked_workers
from beam_retrain.pipelines.jobs.forked_workers import default_processes


@pytest.fixture(autouse=True)
def _four_cores_and_nothing_against_it(monkeypatch):
  monkeypatch.setattr(forked_workers, "available_cores", lambda: 4)
  monkeypatch.setattr(threading, "active_count", lambda: 1)
  monkeypatch.setattr(forked_workers.sys, "modules", {})
  monkeypatch.setattr(forked_workers.sys, "platform", "linux")
  monkeypatch.setattr(forked_workers, "_FORKED", [])


@pytest.mark.parametrize(("shards", "processes"), [(0, 1), (1, 1), (3, 3), (69, 4)])
def test_a_process_for_each_core_but_no_more_than_shards(shards, processes):
  assert default_processes(["--input", "a", "--save_main_session"], shards) == processes


@pytest.mark.parametrize(
  "flag", ["--runner=FlinkRunner", "--direct_num_workers=1", "--direct_running_mode=in_memory", "--environment_type=X"]
)
def test_whoever_says_how_workers_run_gets_what_they_say(flag):
  assert default_processes(["--input=a", flag], 69) == 1


def test_no_process_is_forked_that_has_threads_or_may_have(monkeypatch):
  with monkeypatch.context() as patch:
    patch.setattr(threading, "active_count", lambda: 2)
    assert default_processes([], 69) == 1
  for module in ("tensorflow", "openvino"):
    with monkeypatch.context() as patch:
      patch.setattr(forked_workers.sys, "modules", {module: None})
      assert default_processes([], 69) == 1
  with monkeypatch.context() as patch:
    patch.setattr(forked_workers.sys, "platform", "darwin")
    assert default_processes([], 69) == 1
  with monkeypatch.context() as patch:
    patch.setattr(forked_workers, "_FORKED", [17])
    assert default_processes([], 69) == 1
  assert default_processes([], 69) == 4
