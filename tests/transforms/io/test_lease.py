"""Leases on folders of object stores, on real servers: see also tests/object_stores.py."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.system.locks import claim_of
from beam_retrain.transforms.io import files
from beam_retrain.transforms.io.lease import hold_lease
from tests.helpers import ROOT
from tests.object_stores import Server, gs, s3
from tests.pipelines.jobs.outrun_suite import check_that_it_leaves_the_output_alone
from tests.system.engine_suite import needs_engines

__all__ = ["gs", "s3"]  # fixtures

pytestmark = needs_engines
_SECS, _COMMAND = 1.5, "beam-retrain train"
_HOLDER = """
import sys
from apache_beam.options.pipeline_options import PipelineOptions
from beam_retrain.transforms.io import files
from beam_retrain.transforms.io.lease import hold_lease
files.use_options(PipelineOptions(flags=sys.argv[2:]))
with hold_lease(sys.argv[1], "beam-retrain convert", 1.5):
  print(flush=True)
  sys.stdin.read()
"""


@pytest.fixture(params=["s3", "gs"])
def server(request: pytest.FixtureRequest) -> Server:
  found: Server = request.getfixturevalue(request.param)
  found.use()
  return found


def _hold(server: Server, folder: str) -> subprocess.Popen[str]:
  command = [sys.executable, "-c", _HOLDER, folder, *server.flags]
  process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
  assert process.stdout.readline() == "\n"
  return process


def test_a_second_command_is_told_of_the_first_and_takes_over_when_it_is_dead(server, capfd):
  folder = f"{server.url}/out"
  holder = _hold(server, folder)
  try:
    assert files.is_empty(folder)
    said = rf"{folder} is being written by another command \(`beam-retrain convert`, process {holder.pid} on .* since "
    with pytest.raises(InputError, match=said), hold_lease(folder, _COMMAND, _SECS):
      pass
    assert files.exists(f"{folder}/.lock")
  finally:
    holder.kill()
    holder.communicate()
  with hold_lease(folder, _COMMAND, _SECS):
    claim_of(folder).check(files.read_bytes)
    assert b"beam-retrain train" in files.read_bytes(f"{folder}/.lock")
  assert not files.exists(f"{folder}/.lock")
  assert "warning" not in capfd.readouterr().err


def test_a_holder_whose_lease_was_taken_fails(server):
  folder = f"{server.url}/taken"
  with pytest.raises(InputError, match=f"another command took {folder}"), hold_lease(folder, _COMMAND, _SECS):
    _take_and_wait(folder)
  assert files.read_bytes(f"{folder}/.lock") == b"another's"


def _take_and_wait(folder: str) -> None:
  files.write_text(f"{folder}/.lock", "another's")
  with pytest.raises(InputError, match=f"another command took {folder}"):
    claim_of(folder).check(files.read_bytes)
  threading.Event().wait(60)  # it is interrupted


def test_a_job_that_outlives_its_command_leaves_the_next_one_s_output_alone(server, tmp_path):
  check_that_it_leaves_the_output_alone(f"{server.url}/outrun", tmp_path, *server.flags)


def test_of_commands_that_begin_at_once_one_writes(server):
  folder, inside, refused = f"{server.url}/at-once", [], []
  start, all_tried = threading.Barrier(4), threading.Barrier(4)

  def work() -> None:
    start.wait()
    try:
      with hold_lease(folder, _COMMAND, _SECS):
        inside.append(1)
        all_tried.wait(60)
    except InputError as error:
      refused.append(str(error))
      all_tried.wait(60)

  threads = [threading.Thread(target=work) for _ in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(inside) == 1
  assert len(refused) == 3


class _OldServer(http.server.BaseHTTPRequestHandler):
  """Keeps objects as S3 does, but ignores conditions or does not know them."""

  protocol_version = "HTTP/1.1"
  knows_them_not = False

  def _answer(self, status: int = 200, body: bytes = b"") -> None:
    self.rfile.read(int(self.headers["Content-Length"] or 0))
    self.send_response(status)
    self.send_header("ETag", '"1"')
    self.send_header("Content-Length", str(len(body)))
    self.end_headers()
    self.wfile.write(body)

  def do_PUT(self) -> None:
    is_conditional = bool({"If-Match", "If-None-Match"} & set(self.headers))
    if is_conditional and self.knows_them_not:
      self._answer(501, b"<Error><Code>NotImplemented</Code></Error>")
    else:
      self._answer()

  def do_POST(self) -> None:  # deletes several
    self._answer(body=b"<DeleteResult/>")

  def log_message(self, *_) -> None:
    pass


@pytest.mark.parametrize("knows_them_not", [False, True], ids=["ignored", "unknown"])
def test_a_server_without_conditional_writes_is_told(knows_them_not, monkeypatch, capfd):
  monkeypatch.setattr(_OldServer, "knows_them_not", knows_them_not)
  for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
    monkeypatch.setenv(name, "tests")
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _OldServer) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    files.use_options(PipelineOptions(flags=[f"--s3_endpoint_url=http://127.0.0.1:{server.server_port}"]))
    with hold_lease("s3://bucket/out", _COMMAND, _SECS):
      pass
    server.shutdown()
  files.use_options()
  said = capfd.readouterr().err
  assert said.startswith("beam-retrain: warning: s3://bucket/out: its server has no conditional writes")
  assert len(said.splitlines()) == 1


def test_a_file_system_without_conditional_writes_is_told(capfd):
  with hold_lease("hdfs://namenode/out", _COMMAND, _SECS):
    assert claim_of("hdfs://namenode/out").path == ""
  said = capfd.readouterr().err
  assert said.startswith("beam-retrain: warning: hdfs://namenode/out: its server has no conditional writes")
  assert said.endswith(": run one at a time there.\n")


@pytest.mark.parametrize("secs", ["1e9", "NaN", "-1"])
def test_nobody_waits_for_a_lease_that_is_not_ours(server, secs):
  folder = f"{server.url}/foreign"
  files.write_bytes(f"{folder}/.lock", f'{{"secs": {secs}}}'.encode())
  with pytest.raises(InputError, match=r"\.lock was not written by beam-retrain"), hold_lease(folder, _COMMAND, _SECS):
    pass
  assert files.exists(f"{folder}/.lock")
