"""WebDataset tars through every command that reads images, held against class folders of the same digits."""

from __future__ import annotations

from pathlib import Path

import pytest

from beam_retrain.pipelines import bottlenecks, evaluate
from beam_retrain.pipelines.plan import measure
from beam_retrain.pipelines.plan.request import PlanRequest
from beam_retrain.pipelines.plan.timing import plan_images
from beam_retrain.pipelines.reevaluate import command as reevaluate
from beam_retrain.transforms.bottlenecks.embed import EmbedShard
from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.bottlenecks.store import record_files
from beam_retrain.transforms.core.records.schema import decode_bottleneck
from beam_retrain.transforms.core.records.shards import pick_inputs
from beam_retrain.transforms.core.records.tfrecord import read_records
from tests.helpers import file_contents, read_csv, read_json, write
from tests.transforms.sources.test_webdataset import tar_of

_BAD = ["--max_bad_fraction=0.01"]


@pytest.fixture(scope="module")
def tars(made, tmp_path_factory) -> Path:
  """The digits of `made` in five tars, a copy with another label, one without a label, and an empty one."""
  images = sorted(made.data.rglob("*.png"), key=lambda path: int(path.stem))
  folder = tmp_path_factory.mktemp("tars")
  for number, start in enumerate(range(0, len(images), 400)):
    members = {}
    for path in images[start : start + 400]:
      members[f"{path.stem}.png"] = path.read_bytes()
      members[f"{path.stem}.txt"] = path.parent.name.encode()
    if number == 2:
      first = images[0]
      wrong = next(name for name in made.names if name != first.parent.name)
      members |= {"copy.png": first.read_bytes(), "copy.txt": wrong.encode()}
      members |= {"alone.png": first.read_bytes(), "empty.png": b"", "empty.txt": b"ant"}
    write(folder, {f"{number:05}.tar": tar_of(members), f"{number:05}_stats.json": b"{}"})
  return folder


def vectors(folder: Path) -> dict[str, tuple[str, bytes]]:
  """Returns SHA-256 -> label and vector of the bottlenecks, but of the one image that is there twice."""
  found = {}
  for path in record_files(str(folder)):
    with open(path, "rb") as file:
      for record in map(decode_bottleneck, read_records(file, path)):
        found[record.sha256] = (record.label, record.vector.tobytes())
  return found


def test_bottlenecks_reuse_and_leaks(made, tars, tmp_path, capfd):
  argv = [f"--input={tars}", f"--trunk={made.model.parent / 'trunk'}", "--testing_percentage=30", *_BAD]
  assert bottlenecks.run([*argv, f"--output={tmp_path / 'cold'}"]) == 0
  leaks = read_csv(tmp_path / "cold" / "leaks.csv")
  assert {(kind, name) for kind, _, name, *_ in leaks[1:]} >= {
    ("different_labels", "00000.tar/0.png"),
    ("different_labels", "00002.tar/copy.png"),
  }
  bad = [row[:4] for row in read_csv(tmp_path / "cold" / "quarantine.csv")[1:]]
  assert sorted((name, reason) for name, _, _, reason in bad) == [
    ("00002.tar/alone.png", "BAD_LABEL"),
    ("00002.tar/empty.png", "EMPTY"),
  ]
  stats = read_json(tmp_path / "cold" / "stats.json")
  assert (stats["inputs"], stats["outputs"]) == (1800, 1798)

  assert bottlenecks.run([*argv, f"--output={tmp_path / 'warm'}", f"--reuse={made.bottlenecks}"]) == 0
  assert "1,798 of 1,798 bottlenecks reused" in capfd.readouterr().out
  records = {name: data for name, data in file_contents(tmp_path / "cold" / "records").items() if "/" not in name}
  assert records == {n: d for n, d in file_contents(tmp_path / "warm" / "records").items() if "/" not in n}
  ours, theirs = vectors(tmp_path / "cold"), vectors(made.bottlenecks)
  assert len(ours) == len(theirs) == 1797
  assert sum(ours[sha256] != theirs[sha256] for sha256 in theirs) <= 1  # that of two labels

  assert bottlenecks.run([*argv, f"--output={tmp_path / 'drop'}", "--on_leak=drop"]) == 0
  assert read_json(tmp_path / "drop" / "stats.json")["reasons"]["CONFLICTING_LABELS"] == 2


def test_evaluate_and_a_night_show_thumbnails(made, tars, tmp_path):
  argv = [f"--input={tars}", f"--model={made.model}", *_BAD]
  assert evaluate.run([*argv, f"--output={tmp_path / 'out'}", "--split=testing"]) == 0
  assert read_json(tmp_path / "out" / "metrics.json")["accuracy"] > 0.9
  assert (tmp_path / "out" / "report.html").read_text().count("data:image/") > 3

  assert reevaluate.run([*argv, f"--history={tmp_path / 'history'}", "--date=2026-03-01"]) == 0
  assert "data:image/" in (tmp_path / "history" / "2026-03-01" / "report.html").read_text()


def test_what_plan_takes_of_tars(made, tars, tmp_path):
  """All that depends on the format; its job over the sample is over class folders."""
  request = PlanRequest.parse([f"--input={tars}", "--testing_percentage=30"])
  whole = request.find_input()
  sample = measure._read_sample(request, whole)
  assert measure.write_sample(sample, str(tmp_path)) == [64, 16]
  counts = plan_images(whole.source, whole.percentages)
  assert counts.keys() == {"training", "testing"}
  assert sum(counts.values()) == 1799  # but for the one without a label
  shard, images = whole.source.typical_shard(("training",), whole.percentages, 64)
  assert images > 200
  few = shard._replace(inputs=pick_inputs(shard.inputs, range(9)))
  handler = ImageModelHandler(str(made.bottlenecks / "trunk"))
  assert len(list(EmbedShard(handler, whole.source.labels).work(few))) == 9
