"""Every stage from and to `s3://`, on a real server of S3 on this machine, gives what it gives on a local disk; what a
store's client can change, on one that speaks the protocol of `gs://`, too. See also test_object_files.py."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from beam_retrain.pipelines import bottlenecks, cli, convert, datasets, evaluate
from beam_retrain.pipelines.plan import command as plan
from beam_retrain.pipelines.reevaluate import command as reevaluate
from beam_retrain.transforms.core.corrections import Correction, corrections_csv
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.run.exit_codes import ExitCode
from beam_retrain.transforms.io import cache, files
from beam_retrain.transforms.io.transfer import put_file, put_folder
from tests.helpers import read_json
from tests.object_stores import KEY, SECRET, Server, gs, s3, serve_s3
from tests.system.engine_suite import ONE_WORKER, assert_same, engine_file, needs_engines
from tests.transforms.sources.test_webdataset import tar_of

__all__ = ["gs", "s3"]  # fixtures

pytestmark = [
  needs_engines,
  # How Beam's worker threads in this process end when Flink hangs up on them.
  pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]
_BOTH = pytest.mark.parametrize("server", ["s3", "gs"], indirect=True)


@pytest.fixture
def server(request: pytest.FixtureRequest, local: Work) -> Server:
  """Of S3, where a test does not say, with its options, whatever the last command has left; it has the inputs."""
  found: Server = request.getfixturevalue(getattr(request, "param", "s3"))
  found.use()
  if not (found.bucket / "in").exists():
    for path in (local.idx, local.images):
      put_folder(str(path), f"{found.url}/in/{path.name}")
  return found


class Work(NamedTuple):
  """What the stages write on a local disk; the inputs are on the servers, too, by the same names."""

  idx: Path
  images: Path
  bottlenecks: Path
  model: Path
  evaluation: Path


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Work:
  work = tmp_path_factory.mktemp("local")
  found = Work(*(work / name for name in Work._fields))
  datasets.digits(str(found.idx))
  assert convert.run(_convert(str(found.idx), str(found.images))) == ExitCode.DONE
  assert bottlenecks.run(_embed(str(found.images), str(found.bottlenecks))) == ExitCode.DONE
  assert cli.dispatch(_train(str(found.bottlenecks), str(found.model))) == ExitCode.DONE
  assert evaluate.run(_evaluate(str(found.images), str(found.model), str(found.evaluation))) == ExitCode.DONE
  return found


def _convert(given: str, output: str) -> list[str]:
  return [f"--input={given}", f"--output={output}", *ONE_WORKER]


def _embed(given: str, output: str) -> list[str]:
  return [f"--input={given}/training", f"--output={output}", "--trunk=bundled", *ONE_WORKER]


def _train(given: str, output: str) -> list[str]:
  return ["train", f"--input={given}", f"--output={output}", "--rounds=9"]


def _evaluate(given: str, model: str, output: str) -> list[str]:
  return [f"--input={given}/testing", f"--model={model}", f"--output={output}", *ONE_WORKER]


@_BOTH
def test_convert_with_processes_that_are_forked(server, local):
  argv = [f"--input={server.url}/in/idx", f"--output={server.url}/forked", *server.flags]
  assert convert.run(argv) == ExitCode.DONE
  assert_same(server.bucket / "forked", local.images, has_same_inputs=False)


def test_records_are_read(server, local, tmp_path):
  of_trunk = ["--trunk=bundled", *ONE_WORKER]
  argv = ["--input=s3://bucket/in/images", f"--output={tmp_path / 'bottlenecks'}", *of_trunk, *server.flags]
  assert bottlenecks.run(argv) == ExitCode.DONE
  assert len(list((tmp_path / "bottlenecks" / "records").glob("*.tfrecord"))) == 3


@_BOTH
def test_bottlenecks_train_evaluate(server, local, capfd):
  url, brought = server.url, Path(cache.folder(), "trunks", "brought")
  before = set(brought.glob("*"))
  assert bottlenecks.run([*_embed(f"{url}/in/images", f"{url}/b"), *server.flags]) == ExitCode.DONE
  assert_same(server.bucket / "b", local.bottlenecks, has_same_inputs=False)
  assert len(set(brought.iterdir()) - before) == 1  # once for this machine, and whole
  assert not list(brought.glob(".*"))

  assert cli.dispatch([*_train(f"{url}/b", f"{url}/m"), *server.flags]) == ExitCode.DONE
  assert f"the model is in {url}/m/saved_model" in capfd.readouterr().out
  assert_same_model(server.bucket / "m", local.model)

  argv = _evaluate(f"{url}/in/images", f"{url}/m", f"{url}/e")
  assert evaluate.run([*argv, *server.flags]) == ExitCode.DONE
  assert_same(server.bucket / "e", local.evaluation, has_same_inputs=False)

  # Over what is there: as on a disk, and no neighbour is touched.
  for name in ("b/mine.txt", "m/mine.txt", "m/saved_model/old", "m/trunk-of-mine/a"):
    put_file(str(local.model / "labels.txt"), f"{url}/{name}")
  assert cli.dispatch([*_train(f"{url}/b", f"{url}/m"), *server.flags, "--seed=1"]) == ExitCode.DONE
  added = ("mine.txt", "saved_model/old", "trunk-of-mine/a")
  assert [name for name in added if (server.bucket / "m" / name).exists()] == ["mine.txt", "trunk-of-mine/a"]
  assert not Path(url.partition("//")[0]).exists()


@_BOTH
def test_bottlenecks_are_reused_and_a_manifest_and_corrections_are_read(server, local, capfd):
  """By worker processes, which have their options from the command alone."""
  url, training = server.url, local.images / "training"
  put_folder(str(local.bottlenecks), f"{url}/reused")
  paths = sorted(training.rglob("*.jpg"))[::2]
  rows = [f"training/{path.relative_to(training).as_posix()},{path.parent.name}" for path in paths]
  files.write_text(f"{url}/in/images/manifest.csv", "\n".join(["file_name,label", *rows]) + "\n")
  was, now, sha256 = paths[0].parent.name, paths[-1].parent.name, hashlib.sha256(paths[0].read_bytes()).hexdigest()
  corrected = corrections_csv({("any name", sha256): Correction(was, now, "relabel")})
  files.write_text(f"{url}/in/corrections.csv", corrected)
  places = [f"--input={url}/in/images/manifest.csv", f"--output={url}/listed", f"--reuse={url}/reused"]
  places.append(f"--corrections={url}/in/corrections.csv")
  processes = ["--runner=FnApiRunner", "--direct_running_mode=multi_processing", "--direct_num_workers=2"]
  assert bottlenecks.run([*places, "--trunk=bundled", *processes, *server.flags]) == ExitCode.DONE
  counts = f"{len(rows):,} of {len(rows):,} bottlenecks reused from {url}/reused, 0 computed"
  assert counts in capfd.readouterr().out
  assert read_json(server.bucket / "listed" / "stats.json")["corrections"]["relabelled"] == 1


def test_nights_of_reevaluate(server, local, tmp_path, capfd):
  """The second, of other images, is compared with the first, and run again; no folder of theirs is on a disk."""
  put_folder(str(local.model), "s3://bucket/nightly")
  shutil.copytree(local.images / "testing", tmp_path / "images")
  for number in range(2):
    if number:
      for path in sorted((tmp_path / "images" / "3").glob("*.jpg")):
        path.unlink()
    put_folder(str(tmp_path / "images"), "s3://bucket/tonight")
    for model, given, history in (
      (str(local.model), str(tmp_path / "images"), str(tmp_path / "history")),
      ("s3://bucket/nightly", "s3://bucket/tonight", "s3://bucket/history"),
    ):
      argv = [f"--model={model}", f"--input={given}", f"--history={history}", f"--date=2026-03-0{number + 1}"]
      assert reevaluate.run([*argv, *ONE_WORKER, *server.flags]) == ExitCode.DONE
  assert "bottlenecks reused, 0 computed" in capfd.readouterr().out
  assert reevaluate.run([*argv, *ONE_WORKER, *server.flags]) == ExitCode.DONE
  kept = server.bucket / "history"
  assert sorted(path.name for path in kept.glob("*")) == [
    "2026-03-01.json",
    "2026-03-02.json",
    "metrics.prom",
    "nights",
  ]
  night = kept / "nights" / json.loads((kept / "2026-03-02.json").read_text())["folder"]
  assert len(list(night.parent.iterdir())) == 2
  assert_same(night, tmp_path / "history" / "2026-03-02", has_same_inputs=False)
  assert len((night / "gone.csv").read_text().splitlines()) > 1


def test_plan(server, capfd):
  assert plan.run(["--input=s3://bucket/in/images", "--trunk=bundled", *server.flags]) == ExitCode.DONE
  assert "images      1,797" in capfd.readouterr().out


def assert_same_model(output: Path, expected: Path) -> None:
  assert _names(output) == _names(expected)
  for name in ("head.npz", "trained_on.bin", "labels.txt", "retrained_graph.pb", "trunk/prepared/card.json"):
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
  with serve_s3(server.bucket.parents[1], "--readonly") as guarded:
    argv = [*_train(str(local.bottlenecks), "s3://bucket/guarded"), *guarded.flags]
    with pytest.raises(InputError, match=r"s3://bucket/guarded/.* cannot be written with these credentials \(Access"):
      cli.dispatch(argv)
  assert "images" not in capfd.readouterr().out


def test_a_model_that_cannot_be_taken_back_is_kept(server, local):
  put_folder(str(local.model), "s3://bucket/blocked")
  # Where this server keeps objects as files, none can have a name that goes on behind another's.
  files.delete(["s3://bucket/blocked/saved_model"])
  files.write_text("s3://bucket/blocked/saved_model", "in the way")
  with pytest.raises(InputError, match="the model could not be uploaded") as caught:
    cli.dispatch([*_train(str(local.bottlenecks), "s3://bucket/blocked"), *server.flags])
  kept = Path(re.findall(r"the complete model in (\S+);", str(caught.value))[0])
  try:
    assert_same_model(kept, local.model)
  finally:
    shutil.rmtree(kept)
  assert not (server.bucket / "blocked" / "COMPLETED").exists()


@pytest.mark.parametrize(
  ("given", "key", "secret", "said"),
  [
    (
      "s3://bucket/in/idx",
      "other",
      SECRET,
      "s3://bucket/in/idx: the credentials are refused (XAdminUserNotFound): set",
    ),
    (
      "s3://bucket/in/idx",
      KEY,
      "other",
      "s3://bucket/in/idx: the credentials are refused (SignatureDoesNotMatch): set",
    ),
    ("s3://none/in/idx", KEY, SECRET, "s3://none/in/idx: there is no bucket none: create it, or give another path"),
    (
      "s3://bucket/nothing",
      KEY,
      SECRET,
      "s3://bucket/nothing does not exist: give a CSV manifest, the output folder of `beam-retrain convert`, a folder"
      " of MNIST-style IDX files, WebDataset tars or a folder with one folder of images per class.",
    ),
  ],
)
def test_what_cannot_be_read_is_one_sentence(given, key, secret, said, server, tmp_path, monkeypatch):
  monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
  monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
  with pytest.raises(InputError) as caught:
    bottlenecks.run([*_embed(given.removesuffix("/training"), str(tmp_path / "output")), *server.flags])
  assert str(caught.value).replace("/training", "").startswith(said)


def test_on_flink(server, local):
  jar = engine_file("flink", "job-server.jar")
  on_flink = ["--runner=FlinkRunner", "--flink_master=[local]", f"--flink_job_server_jar={jar}", *server.flags]
  assert convert.run(["--input=s3://bucket/in/idx", "--output=s3://bucket/flink/p", *on_flink]) == ExitCode.DONE
  assert_same(server.bucket / "flink" / "p", local.images, has_same_inputs=False)

  argv = ["--input=s3://bucket/flink/p/training", "--output=s3://bucket/flink/b", "--trunk=bundled", *on_flink]
  assert bottlenecks.run(argv) == ExitCode.DONE
  assert_same(server.bucket / "flink" / "b", local.bottlenecks, has_same_inputs=False)

  assert cli.dispatch([*_train("s3://bucket/flink/b", "s3://bucket/flink/m"), *server.flags]) == ExitCode.DONE
  places = ["--model=s3://bucket/flink/m", "--output=s3://bucket/flink/e"]
  assert evaluate.run(["--input=s3://bucket/flink/p/testing", *places, *on_flink]) == ExitCode.DONE
  assert_same(server.bucket / "flink" / "e", local.evaluation, has_same_inputs=False)


def test_webdataset_tars(server, local, tmp_path):
  """By worker processes, from one folder of tars on a disk and in a bucket."""
  paths = sorted((local.images / "training").rglob("*.jpg"))
  for number in range(2):
    members = {}
    for path in paths[number::2]:
      members |= {f"{path.stem}.jpg": path.read_bytes(), f"{path.stem}.cls": path.parent.name.encode()}
    (tmp_path / "tars").mkdir(exist_ok=True)
    (tmp_path / "tars" / f"{number:05}.tar").write_bytes(tar_of(members))
  put_folder(str(tmp_path / "tars"), f"{server.url}/in/tars")
  processes = ["--runner=FnApiRunner", "--direct_running_mode=multi_processing", "--direct_num_workers=2"]
  for given, output in (
    (str(tmp_path / "tars"), str(tmp_path / "b")),
    (f"{server.url}/in/tars", f"{server.url}/tars-b"),
  ):
    argv = [f"--input={given}", f"--output={output}", "--trunk=bundled", *processes, *server.flags]
    assert bottlenecks.run(argv) == ExitCode.DONE
  assert_same(server.bucket / "tars-b", tmp_path / "b", has_same_inputs=False)
  argv = [f"--input={server.url}/in/tars", f"--model={local.model}", f"--output={tmp_path / 'e'}", *ONE_WORKER]
  assert evaluate.run([*argv, *server.flags]) == ExitCode.DONE
  assert "data:image/" in (tmp_path / "e" / "report.html").read_text()
