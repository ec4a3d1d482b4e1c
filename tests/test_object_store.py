"""Every stage from and to `s3://`, on a real server of S3 on this machine, gives what it gives on a local disk.

The server keeps its objects as files below one folder, which is what the tests look at: `make engines` brings it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines import bottlenecks, cli, convert, datasets, evaluate, output_folder
from pipelines.running import DONE
from tests.engine_suite import ENGINES, ONE_WORKER, assert_same, engine_file
from transforms import files, remote, trunk_cache
from transforms.brought import bring, get_folder, put_file, put_folder, replace_folder
from transforms.core.errors import InputError

pytestmark = [
  pytest.mark.skipif(
    not os.environ.get(ENGINES),
    reason=f"{ENGINES} names no folder of engines: `make test-engines` makes one and sets it",
  ),
  # How Beam's worker threads in this process end when Flink hangs up on them.
  pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]

_KEY, _SECRET = "tests", "only for tests"
_PATIENCE_SECS = 30


class Server(NamedTuple):
  """A server of S3.

  Attributes:
    bucket: where the objects of `s3://bucket` lie as files.
    endpoint: its address.
  """

  bucket: Path
  endpoint: str

  @property
  def flags(self) -> list[str]:
    return [f"--s3_endpoint_url={self.endpoint}", "--s3_region_name=us-east-1"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
  folder = tmp_path_factory.mktemp("s3")
  for name in ("objects/bucket", "attributes"):
    (folder / name).mkdir(parents=True)
  with _serve(folder) as found, pytest.MonkeyPatch.context() as patch:
    patch.setenv("AWS_ACCESS_KEY_ID", _KEY)
    patch.setenv("AWS_SECRET_ACCESS_KEY", _SECRET)
    patch.setenv("AWS_CONFIG_FILE", os.devnull)
    files.use_options(PipelineOptions(flags=found.flags))
    yield found
    files.use_options()


@contextlib.contextmanager
def _serve(folder: Path, *more: str) -> Iterator[Server]:
  """Serves `folder/objects`, whose folders are the buckets."""
  with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
  command = [
    *(str(engine_file("versitygw-v1.8.0", "versitygw")), "--port", f"127.0.0.1:{port}", *more),
    *("posix", "--sidecar", str(folder / "attributes"), str(folder / "objects")),
  ]
  environment = {"ROOT_ACCESS_KEY": _KEY, "ROOT_SECRET_KEY": _SECRET, "HOME": str(folder)}
  with (folder / "log").open("ab") as log:
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
      _wait_for(port, process, folder / "log")
      yield Server(folder / "objects" / "bucket", f"http://127.0.0.1:{port}")
    finally:
      process.terminate()
      process.wait(_PATIENCE_SECS)


def _wait_for(port: int, process: subprocess.Popen, log: Path) -> None:
  until = time.monotonic() + _PATIENCE_SECS
  while time.monotonic() < until and process.poll() is None:
    try:
      socket.create_connection(("127.0.0.1", port), 1).close()
      return
    except OSError:
      time.sleep(0.1)
  raise AssertionError(log.read_text())


@pytest.fixture(autouse=True)
def options(request: pytest.FixtureRequest) -> None:
  """Those of the server, whatever the last command has left."""
  files.use_options(PipelineOptions(flags=request.getfixturevalue("server").flags))


class Work(NamedTuple):
  """What the stages write on a local disk; the inputs are on the server, too, by the same names."""

  idx: Path
  pictures: Path
  bottlenecks: Path
  model: Path
  evaluation: Path


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Work:
  work = tmp_path_factory.mktemp("local")
  found = Work(*(work / name for name in Work._fields))
  datasets.digits(str(found.idx))
  assert convert.run(_convert(str(found.idx), str(found.pictures))) == DONE
  for name in ("idx", "pictures"):
    files.use_options(PipelineOptions(flags=server.flags))
    put_folder(str(work / name), f"s3://bucket/in/{name}")
  assert bottlenecks.run(_embed(str(found.pictures), str(found.bottlenecks))) == DONE
  assert cli.dispatch(_train(str(found.bottlenecks), str(found.model))) == DONE
  assert evaluate.run(_evaluate(str(found.pictures), str(found.model), str(found.evaluation))) == DONE
  return found


def _convert(given: str, output: str) -> list[str]:
  return [f"--input={given}", f"--output={output}", *ONE_WORKER]


def _embed(given: str, output: str) -> list[str]:
  return [f"--input={given}/training", f"--output={output}", "--trunk=bundled", *ONE_WORKER]


def _train(given: str, output: str) -> list[str]:
  return ["train", f"--input={given}", f"--output={output}", "--rounds=9"]


def _evaluate(given: str, model: str, output: str) -> list[str]:
  return [f"--input={given}/testing", f"--model={model}", f"--output={output}", *ONE_WORKER]


def test_convert(server, local):
  assert convert.run([*_convert("s3://bucket/in/idx", "s3://bucket/converted"), *server.flags]) == DONE
  assert_same(server.bucket / "converted", local.pictures, has_same_inputs=False)


def test_convert_with_processes_that_are_forked(server, local):
  argv = ["--input=s3://bucket/in/idx", "--output=s3://bucket/forked", *server.flags]
  assert convert.run(argv) == DONE
  assert_same(server.bucket / "forked", local.pictures, has_same_inputs=False)


def test_records_are_read(server, local, tmp_path):
  of_trunk = ["--trunk=bundled", *ONE_WORKER]
  argv = ["--input=s3://bucket/in/pictures", f"--output={tmp_path / 'bottlenecks'}", *of_trunk, *server.flags]
  assert bottlenecks.run(argv) == DONE
  assert len(list((tmp_path / "bottlenecks" / "records").glob("*.tfrecord"))) == 3


def test_bottlenecks_train_evaluate(server, local, capfd):
  brought = Path(trunk_cache.folder(), "trunks", "brought")
  assert bottlenecks.run([*_embed("s3://bucket/in/pictures", "s3://bucket/b"), *server.flags]) == DONE
  assert_same(server.bucket / "b", local.bottlenecks, has_same_inputs=False)
  assert len(list(brought.iterdir())) == 1  # once for this machine, and whole
  assert not list(brought.glob(".*"))

  assert cli.dispatch([*_train("s3://bucket/b", "s3://bucket/m"), *server.flags]) == DONE
  assert "the model is in s3://bucket/m/saved_model" in capfd.readouterr().out
  assert_same_model(server.bucket / "m", local.model)

  argv = _evaluate("s3://bucket/in/pictures", "s3://bucket/m", "s3://bucket/e")
  assert evaluate.run([*argv, *server.flags]) == DONE
  assert_same(server.bucket / "e", local.evaluation, has_same_inputs=False)

  # Over what is there: as on a disk, and no neighbour is touched.
  for name in ("b/mine.txt", "m/mine.txt", "m/saved_model/old", "m/trunk-of-mine/a"):
    put_file(str(local.model / "labels.txt"), f"s3://bucket/{name}")
  assert cli.dispatch([*_train("s3://bucket/b", "s3://bucket/m"), *server.flags, "--seed=1"]) == DONE
  assert {
    name for name in ("mine.txt", "saved_model/old", "trunk-of-mine/a") if (server.bucket / "m" / name).exists()
  } == {
    "mine.txt",
    "trunk-of-mine/a",
  }
  assert not Path("s3:").exists()


def assert_same_model(output: Path, expected: Path) -> None:
  assert _names(output) == _names(expected)
  for name in ("head.npz", "labels.txt", "retrained_graph.pb", "trunk/prepared/card.json", "COMPLETED"):
    assert (output / name).read_bytes() == (expected / name).read_bytes(), name


def _names(folder: Path) -> list[str]:
  names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
  return sorted(name for name in names if not name.startswith("logs/"))  # which are named by the time


def test_a_training_that_fails_takes_nothing_away(server, local):
  put_folder(str(local.bottlenecks), "s3://bucket/damaged")
  put_folder(str(local.model), "s3://bucket/kept")
  files.delete(["s3://bucket/damaged/stats.json"])
  record = next((local.bottlenecks / "records").glob("training-00000*"))
  put_file(str(local.bottlenecks / "stats.json"), f"s3://bucket/damaged/records/{record.name}")
  put_file(str(local.bottlenecks / "stats.json"), "s3://bucket/damaged/stats.json")
  with pytest.raises(InputError, match="s3://bucket/damaged/records"):
    cli.dispatch([*_train("s3://bucket/damaged", "s3://bucket/kept"), *server.flags])
  assert_same_model(server.bucket / "kept", local.model)


def test_a_bucket_that_may_not_be_written_is_told_before_the_training(server, local, capfd):
  with _serve(server.bucket.parents[1], "--readonly") as guarded:
    argv = [*_train(str(local.bottlenecks), "s3://bucket/guarded"), *guarded.flags]
    with pytest.raises(InputError, match=r"s3://bucket/guarded/.* cannot be written with these credentials \(Access"):
      cli.dispatch(argv)
  assert "images" not in capfd.readouterr().out


def test_a_model_that_cannot_be_taken_back_is_kept(server, local):
  put_folder(str(local.model), "s3://bucket/blocked")
  # Where this server keeps objects as files, none can have a name that goes on behind another's.
  files.delete(["s3://bucket/blocked/saved_model"])
  files.write_text("s3://bucket/blocked/saved_model", "in the way")
  with pytest.raises(InputError, match="the model could not be taken there") as caught:
    cli.dispatch([*_train(str(local.bottlenecks), "s3://bucket/blocked"), *server.flags])
  kept = Path(re.findall(r"it is whole in (\S+),", str(caught.value))[0])
  try:
    assert_same_model(kept, local.model)
  finally:
    shutil.rmtree(kept)
  assert not (server.bucket / "blocked" / "COMPLETED").exists()


def test_one_object_is_deleted_and_not_what_lies_below_its_name(server):
  for name in ("a", "b/c", "b/d"):
    files.write_text(f"s3://bucket/named/{name}", name)
  remote.delete_objects(["s3://bucket/named/a", "s3://bucket/named/b"])
  assert [found.path for found in files.list_tree("s3://bucket/named")] == [f"s3://bucket/named/b/{n}" for n in "cd"]


def test_what_a_stage_replaces_is_its_own(server, local):
  files.write_text("s3://bucket/above/neighbour/labels.txt", "n")
  files.write_text("s3://bucket/above/out-of-others/records/a", "n")
  output = "s3://bucket/above/out"
  for settings in ({"a": 1}, {"a": 2}):
    owned = ["records", "*.csv"]
    output_folder.claim(output, stage="convert", settings=settings, argv=[], owned=owned, shards_folder="records")
    for name in ("records/.shards/1.json", "records/1", "2.csv", "mine", "deeper/3.csv", "records-of-mine/1"):
      if settings == {"a": 1}:
        files.write_text(f"{output}/{name}", "")
  left = {found.path.removeprefix("s3://bucket/above/") for found in files.list_tree("s3://bucket/above")}
  assert left == {
    *("neighbour/labels.txt", "out-of-others/records/a"),
    *("out/info.json", "out/mine", "out/deeper/3.csv", "out/records-of-mine/1"),
  }
  for name in ("", ".", "..", "../neighbour", "a/b", "*", "**"):
    with pytest.raises(ValueError, match="is no name directly in a folder"):
      output_folder.claim(output, stage="convert", settings={"a": name}, argv=[], owned=[name])


def test_a_file_appears_whole_or_not_at_all(server):
  with pytest.raises(KeyError), files.write_atomically("s3://bucket/files/half") as file:  # noqa: PT012
    file.write(b"1" * (1 << 25))
    raise KeyError
  assert files.stat("s3://bucket/files/half") is None
  for size in (0, 3, 1 << 25):
    files.write_bytes("s3://bucket/files/a [b]* c", b"1" * size)
    found = files.stat("s3://bucket/files/a [b]* c")
    assert found is not None
    assert (found.size_bytes, files.read_bytes(found.path)) == (size, b"1" * size)
  assert abs(found.modified_secs - time.time()) < 60
  assert [one.path for one in files.match_in("s3://bucket/files", "*")] == ["s3://bucket/files/a [b]* c"]


def test_patterns_and_folders(server):
  for name in ("a.txt", "b/c.txt", "b/d.json", "b/e/f.txt", ".hidden/g.txt", "bb/h.txt"):
    files.write_text(f"s3://bucket/tree/x[1]/{name}", name)
  folder = "s3://bucket/tree/x[1]"

  def names(pattern: str) -> list[str]:
    return [found.path.removeprefix(f"{folder}/") for found in files.match_in(folder, pattern)]

  assert names("*.txt") == ["a.txt"]
  assert names("b/*.txt") == ["b/c.txt"]
  assert names("*/e/f.t?t") == ["b/e/f.txt"]
  assert names("**") == [".hidden/g.txt", "a.txt", "b/c.txt", "b/d.json", "b/e/f.txt", "bb/h.txt"]
  assert files.subfolders(folder) == ["b", "bb"]
  assert files.subfolders("s3://bucket/tree/x") == []
  assert (files.is_empty(folder), files.is_empty("s3://bucket/tree/x")) == (False, True)
  assert (files.exists(f"{folder}/a.txt"), files.exists(folder)) == (True, False)
  files.delete([f"{folder}/b", f"{folder}/none"])
  assert names("**") == [".hidden/g.txt", "a.txt", "bb/h.txt"]


def test_a_folder_is_brought_once_and_again_when_it_has_changed(server, tmp_path, monkeypatch):
  monkeypatch.setenv("BEAM_RETRAIN_CACHE_DIR", str(tmp_path))
  with replace_folder("s3://bucket/trunk") as made:
    Path(made, "deeper").mkdir()
    Path(made, "deeper", "a").write_text("first")
    Path(made, "b").write_text("b")
  here = Path(bring("s3://bucket/trunk"))
  assert {path.relative_to(here).as_posix() for path in here.rglob("*")} == {"b", "deeper", "deeper/a"}
  assert bring("s3://bucket/trunk") == str(here)
  with replace_folder("s3://bucket/trunk") as made:
    Path(made, "a").write_text("second one")
  again = Path(bring("s3://bucket/trunk"))
  assert [path.name for path in again.rglob("*")] == ["a"]
  os.utime(here.parent, (0, 0))
  with replace_folder("s3://bucket/trunk") as made:
    Path(made, "c").touch()
  bring("s3://bucket/trunk")
  assert (here.exists(), again.exists()) == (False, True)  # one of them nobody has asked for in a week
  with pytest.raises(InputError, match="s3://bucket/nothing is empty or not there"):
    bring("s3://bucket/nothing")
  get_folder("s3://bucket/trunk", str(tmp_path / "copy"))
  assert os.listdir(tmp_path / "copy") == ["c"]


@pytest.mark.parametrize(
  ("given", "key", "secret", "said"),
  [
    (
      "s3://bucket/in/idx",
      "other",
      _SECRET,
      "s3://bucket/in/idx: the credentials are refused (XAdminUserNotFound): set",
    ),
    (
      "s3://bucket/in/idx",
      _KEY,
      "other",
      "s3://bucket/in/idx: the credentials are refused (SignatureDoesNotMatch): set",
    ),
    ("s3://none/in/idx", _KEY, _SECRET, "s3://none/in/idx: there is no bucket none: make it, or give another path"),
    ("s3://bucket/nothing", _KEY, _SECRET, "s3://bucket/nothing does not exist: give a folder of IDX files"),
  ],
)
def test_what_cannot_be_read_is_one_sentence(given, key, secret, said, server, tmp_path, monkeypatch):
  monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
  monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
  with pytest.raises(InputError) as caught:
    bottlenecks.run([*_embed(given.removesuffix("/training"), str(tmp_path / "output")), *server.flags])
  assert str(caught.value).replace("/training", "").startswith(said)


def test_on_flink(server, local, tmp_path):
  jar = engine_file("flink", "job-server.jar")
  on_flink = ["--runner=FlinkRunner", "--flink_master=[local]", f"--flink_job_server_jar={jar}", *server.flags]
  assert convert.run(["--input=s3://bucket/in/idx", "--output=s3://bucket/flink/p", *on_flink]) == DONE
  assert_same(server.bucket / "flink" / "p", local.pictures, has_same_inputs=False)

  argv = ["--input=s3://bucket/flink/p/training", "--output=s3://bucket/flink/b", "--trunk=bundled", *on_flink]
  with pytest.raises(InputError, match=r"on FlinkRunner TensorFlow writes the transform graph .* --temp_location"):
    bottlenecks.run(argv)
  assert bottlenecks.run([*argv, f"--temp_location={tmp_path / 'temp'}"]) == DONE
  assert_same(server.bucket / "flink" / "b", local.bottlenecks, has_same_inputs=False)
  assert list((tmp_path / "temp").iterdir()) == []

  assert cli.dispatch([*_train("s3://bucket/flink/b", "s3://bucket/flink/m"), *server.flags]) == DONE
  places = ["--model=s3://bucket/flink/m", "--output=s3://bucket/flink/e"]
  assert evaluate.run(["--input=s3://bucket/flink/p/testing", *places, *on_flink]) == DONE
  assert_same(server.bucket / "flink" / "e", local.evaluation, has_same_inputs=False)
