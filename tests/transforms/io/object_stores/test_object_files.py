"""What `files` and its neighbours do on a real server of `s3://`, and on one that speaks the protocol of `gs://`."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from botocore.exceptions import EndpointConnectionError

from beam_retrain.pipelines.jobs.runner import claim_output
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.run.run_info import describe_run
from beam_retrain.transforms.io import files
from beam_retrain.transforms.io.transfer import download, get_folder, replace_folder
from tests.object_stores import Server, gs, s3
from tests.system.engine_suite import needs_engines

__all__ = ["gs", "s3"]  # fixtures

pytestmark = needs_engines


@pytest.fixture(params=["s3", "gs"])
def server(request: pytest.FixtureRequest) -> Server:
  """Of each kind, with its options, whatever the last test has left."""
  found: Server = request.getfixturevalue(request.param)
  found.use()
  return found


def test_a_file_appears_whole_or_not_at_all(server):
  with pytest.raises(KeyError), files.write_atomically(f"{server.url}/files/half") as file:  # noqa: PT012
    file.write(b"1" * (1 << 25))
    raise KeyError
  assert files.stat(f"{server.url}/files/half") is None
  for size in (0, 3, 1 << 25):
    files.write_bytes(f"{server.url}/files/a [b]* c", b"1" * size)
    found = files.stat(f"{server.url}/files/a [b]* c")
    assert found is not None
    assert (found.size_bytes, files.read_bytes(found.path)) == (size, b"1" * size)
  assert abs(found.modified_secs - time.time()) < 60
  assert [one.path for one in files.match_in(f"{server.url}/files", "*")] == [f"{server.url}/files/a [b]* c"]


def test_patterns_and_folders(server):
  for name in ("a.txt", "b/c.txt", "b/d.json", "b/e/f.txt", ".hidden/g.txt", "bb/h.txt"):
    files.write_text(f"{server.url}/tree/x[1]/{name}", name)
  folder = f"{server.url}/tree/x[1]"

  def names(pattern: str) -> list[str]:
    return [found.path.removeprefix(f"{folder}/") for found in files.match_in(folder, pattern)]

  assert names("*.txt") == ["a.txt"]
  assert names("b/*.txt") == ["b/c.txt"]
  assert names("*/e/f.t?t") == ["b/e/f.txt"]
  assert names("**") == [".hidden/g.txt", "a.txt", "b/c.txt", "b/d.json", "b/e/f.txt", "bb/h.txt"]
  assert files.subfolders(folder) == ["b", "bb"]
  assert files.subfolders(f"{server.url}/tree/x") == []
  assert (files.is_empty(folder), files.is_empty(f"{server.url}/tree/x")) == (False, True)
  assert (files.exists(f"{folder}/a.txt"), files.exists(folder)) == (True, False)
  files.delete([f"{folder}/b", f"{folder}/none"])
  assert names("**") == [".hidden/g.txt", "a.txt", "bb/h.txt"]


def test_one_object_is_deleted_and_not_what_lies_below_its_name(server):
  for name in ("a", "b/c", "b/d"):
    files.write_text(f"{server.url}/named/{name}", name)
  files.delete_objects([f"{server.url}/named/a", f"{server.url}/named/b"])
  left = [found.path for found in files.list_tree(f"{server.url}/named")]
  assert left == [f"{server.url}/named/b/{name}" for name in "cd"]


def test_what_a_stage_replaces_is_its_own(server):
  files.write_text(f"{server.url}/above/neighbour/labels.txt", "n")
  files.write_text(f"{server.url}/above/out-of-others/records/a", "n")
  output = f"{server.url}/above/out"
  for settings in ({"a": 1}, {"a": 2}):
    owned = ["records", "*.csv"]
    claim_output(output, describe_run("convert", settings, []), owned=owned, shards_folder="records")
    for name in ("records/.shards/1.json", "records/1", "2.csv", "mine", "deeper/3.csv", "records-of-mine/1"):
      if settings == {"a": 1}:
        files.write_text(f"{output}/{name}", "")
  left = {found.path.removeprefix(f"{server.url}/above/") for found in files.list_tree(f"{server.url}/above")}
  assert left == {
    *("neighbour/labels.txt", "out-of-others/records/a"),
    *("out/info.json", "out/labels.txt", "out/mine", "out/deeper/3.csv", "out/records-of-mine/1"),
  }
  for name in ("", ".", "..", "../neighbour", "a/b", "*", "**"):
    with pytest.raises(ValueError, match="is not a plain file name"):
      claim_output(output, describe_run("convert", {"a": name}, []), owned=[name])


def test_a_folder_is_brought_once_and_again_when_it_has_changed(server, tmp_path, monkeypatch):
  monkeypatch.setenv("BEAM_RETRAIN_CACHE_DIR", str(tmp_path))
  folder = f"{server.url}/trunk"
  with replace_folder(folder) as made:
    Path(made, "deeper").mkdir()
    Path(made, "deeper", "a").write_text("first")
    Path(made, "b").write_text("b")
  here = Path(download(folder))
  assert {path.relative_to(here).as_posix() for path in here.rglob("*")} == {"b", "deeper", "deeper/a"}
  assert download(folder) == str(here)
  with replace_folder(folder) as made:
    Path(made, "a").write_text("second one")
  again = Path(download(folder))
  assert [path.name for path in again.rglob("*")] == ["a"]
  os.utime(here.parent, (0, 0))
  with replace_folder(folder) as made:
    Path(made, "c").touch()
  download(folder)
  assert (here.exists(), again.exists()) == (False, True)  # one of them nobody has asked for in a week
  with pytest.raises(InputError, match=f"{server.url}/nothing is empty or does not exist"):
    download(f"{server.url}/nothing")
  get_folder(folder, str(tmp_path / "copy"))
  assert os.listdir(tmp_path / "copy") == ["c"]


def test_of_what_is_not_there_it_says_so(server):
  with pytest.raises(FileNotFoundError) as caught:
    files.read_bytes(f"{server.url}/none")
  assert caught.value.filename == f"{server.url}/none"


def test_what_may_not_be_read_is_one_sentence_and_no_bad_image(s3, monkeypatch):
  s3.use()
  files.write_text("s3://bucket/secret", "")
  monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
  s3.use()
  with pytest.raises(InputError, match=r"s3://bucket/secret cannot be read with these credentials \(SignatureDoesNot"):
    files.read_bytes("s3://bucket/secret")


def test_a_server_that_does_not_answer_is_not_waited_for_for_long(s3):
  with socket.create_server(("127.0.0.1", 0)) as free:
    nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
  files.use_options(PipelineOptions(flags=[f"--s3_endpoint_url={nobody}", "--s3_region_name=us-east-1"]))
  began = time.monotonic()
  with pytest.raises(EndpointConnectionError):
    files.read_bytes("s3://bucket/any")
  assert time.monotonic() - began < 120
