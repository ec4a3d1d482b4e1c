"""Nights compared by a Beam job: what comes out and what it writes, against a plain count of the same nights."""

from __future__ import annotations

import csv
import dataclasses
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.pipelines.jobs.runner import runner_for
from beam_retrain.transforms.core.errors import InputError, user_sentence
from beam_retrain.transforms.core.metrics.comparison import Bucket, Change, Gone, New, Plan
from beam_retrain.transforms.core.metrics.figures import ModelMetrics
from beam_retrain.transforms.core.metrics.metrics_file import model_to_json
from beam_retrain.transforms.core.metrics.predictions import HEADER_TRAINED_ON, Row, csv_line, whole_line
from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.schema import shard_name
from beam_retrain.transforms.core.records.shards import ShardReport
from beam_retrain.transforms.evaluation import compare_nights
from beam_retrain.transforms.evaluation.compare_nights import (
  CHANGES_FILES,
  MAX_SHOWN,
  SLICES_FILE,
  CompareNights,
  NightsCompared,
  slices_csv,
)
from tests.transforms.core.metrics.random_nights import NIGHT, plainly, random_case

SEEDS = [1, 3, 4, 5, 6, 7, 18, 24, 25, 30, 34]
TWO_PROCESSES = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]


def _cells(row: Row) -> list[str]:
  others = ["9", "1.0000", "8", "0.5000", "50.0000"]
  return [*row[:4], str(row.right), *others, row.sha256, "testing", row.trained_on]


def _write_predictions(path: Path, rows: Sequence[Row]) -> str:
  path.write_text(HEADER_TRAINED_ON + "".join(whole_line(_cells(row), "now") for row in rows), newline="")
  return str(path)


def _write_manifest(path: Path, bucket: Bucket, plan: Plan) -> str:
  with path.open("w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["file_name", *plan.columns])
    writer.writerows([row.key, *row.values] for row in bucket.manifest)
  return str(path)


def _write_parts(folder: Path, tonight: Mapping[str, Sequence[Row]], shards: int, bad: Sequence[str] = ()) -> list:
  """Returns the reports; the last shard has the images that could not be used."""
  folder.mkdir()
  reports = []
  for index in range(shards):
    name = shard_name("testing", index, shards, "csv")
    images = list(zip(*tonight.values(), strict=True))[index::shards]
    lines = [csv_line([model, *_cells(row)]) for rows in images for model, row in zip(tonight, rows, strict=True)]
    (folder / name).write_text("".join(lines), newline="")
    quarantined = [Quarantined(key, 0, Reason.EMPTY, "", "testing") for key in bad] if index + 1 == shards else []
    inputs = len(images) + len(quarantined)
    reports.append(ShardReport(name, "testing", inputs, len(images), 0, "", "", {}, tuple(quarantined)))
  return reports


def _to_json(found: NightsCompared) -> dict[str, Any]:
  models = {
    model: model_to_json(ModelMetrics(comparison=found.comparison.get(model), slices=found.slices.get(model)))
    for model in {**found.comparison, **found.slices}
  }
  tables = ("comparison", "slices", "slices_beside")
  return {
    **{key: {model: entries[key] for model, entries in models.items() if key in entries} for key in tables},
    "images": {kind: list(map(dataclasses.asdict, images)) for kind, images in found.images.items()},
  }


def _run(reports: Sequence[ShardReport], step: CompareNights, folder: Path, *flags: str) -> dict[str, Any]:
  path = folder / "found.json"
  options = PipelineOptions(flags=list(flags))
  with beam.Pipeline(runner_for(options), options=options) as root:
    found = root | beam.Create(reports) | beam.Reshuffle() | step
    _ = found | beam.Map(lambda one: path.open("a").write(json.dumps(_to_json(one)) + "\n"))
  (line,) = path.read_text().splitlines()  # exactly one
  return json.loads(line)


def _compare(tmp_path: Path, bucket: Bucket, plan: Plan, shards: int = 2, bad: Sequence[str] = (), **more: Any) -> dict:
  reports = _write_parts(tmp_path / ".parts", bucket.tonight, shards, bad)
  step = CompareNights(
    output=str(tmp_path),
    models=plan.models,
    baseline=_write_predictions(tmp_path / "baseline.csv", bucket.baseline) if plan.baseline else None,
    baseline_name=plan.baseline,
    manifest=_write_manifest(tmp_path / "m.csv", bucket, plan) if plan.manifest else None,
    **more,
  )
  return _run(reports, step, tmp_path)


def _read(path: Path) -> list[list[str]]:
  with path.open(newline="") as file:
    return list(csv.reader(file))


def _rows(count: int, predicted: str, confidence: float = 90) -> list[Row]:
  """Images of a 5, which 5 is right of."""
  return [Row(f"{number:03d}.jpg", "5", predicted, f"{confidence:.4f}", "ab" * 32) for number in range(count)]


def _shown(lines: Sequence[Sequence[str]]) -> list[dict]:
  """What is shown of few lines of `regressed.csv`."""
  images = [
    {
      "model": line[7],
      "key": line[0],
      "actual": line[1],
      "predicted": line[4],
      "confidence": float(line[5]),
      "baseline_predicted": line[2],
      "baseline_confidence": float(line[3]),
      "thumbnail": None,
      "edited": line[6] == "True",
    }
    for line in lines
  ]
  return sorted(images, key=lambda image: (-image["confidence"], image["key"], image["model"]))


@pytest.mark.parametrize("seed", SEEDS)
def test_random_nights(tmp_path, seed, monkeypatch):
  monkeypatch.setattr(compare_nights, "_ROWS_HELD", 1 + 7 * seed)  # files are packed in several goes
  bucket, plan, min_slice_size = random_case(seed)
  found = _compare(tmp_path, bucket, plan, shards=1 + seed % 6, min_slice_size=min_slice_size)
  figures, slices, beside, lines = plainly(bucket, plan, min_slice_size)
  assert found["comparison"] == figures
  assert found["slices"] == (slices if plan.manifest else {})
  assert found["slices_beside"] == (beside if plan.manifest else {})
  for kind, kind_type in zip(("regressed", "fixed", "new", "gone"), (Change, Change, New, Gone), strict=True):
    assert _read(tmp_path / f"{kind}.csv") == [list(kind_type._fields), *lines[kind]]
  assert found["images"].keys() == {"regressed", "fixed"}
  for kind, images in found["images"].items():
    assert len(lines[kind]) <= MAX_SHOWN, "choose another seed"
    assert images == _shown(lines[kind])
  if plan.manifest:
    written = _read(tmp_path / SLICES_FILE)
    of_values = sum(len(values) for columns in slices.values() for values in columns.values())
    others = [row for columns in beside.values() for kinds in columns.values() for row in kinds.values() if row]
    assert len(written) == 1 + of_values + len(others)
  else:
    assert not (tmp_path / SLICES_FILE).exists()


def test_the_random_nights_are_of_every_kind():
  plans = [random_case(seed)[1] for seed in SEEDS]
  kinds = {(len(plan.models), plan.baseline is None, plan.manifest is None) for plan in plans}
  assert len(kinds) == 2 * 2 * 2


def test_processes_and_shards_change_nothing(tmp_path):
  bucket, plan, _ = random_case(5)
  for folder in ("one", "two"):
    (tmp_path / folder).mkdir()
  found = _compare(tmp_path / "one", bucket, plan, shards=1)
  reports = _write_parts(tmp_path / "two/.parts", bucket.tonight, 5)
  step = CompareNights(
    output=str(tmp_path / "two"),
    models=plan.models,
    baseline=str(tmp_path / "one/baseline.csv") if plan.baseline else None,
    baseline_name=plan.baseline,
    manifest=str(tmp_path / "one/m.csv") if plan.manifest else None,
  )
  assert _run(reports, step, tmp_path / "two", *TWO_PROCESSES) == found
  for name in CHANGES_FILES:
    assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_few_of_many_are_shown_the_most_confident_of_each_model(tmp_path):
  count = MAX_SHOWN + 40
  sure = [row._replace(confidence=f"{50 + number % 50}.0000") for number, row in enumerate(_rows(count, "6"))]
  # The model gets 10 wrong, hesitating; the candidate all others, and surely.
  model = [row._replace(confidence="30.0000") if number < 10 else row for number, row in enumerate(sure)]
  model[10:] = _rows(count, "5")[10:]
  candidate = [*_rows(count, "5")[:10], *sure[10:]]
  bucket = Bucket({"model": model, "candidate": candidate}, _rows(count, "5"))
  found = _compare(tmp_path, bucket, Plan(("model", "candidate"), NIGHT))
  assert (found["comparison"]["model"]["regressed"], found["comparison"]["candidate"]["regressed"]) == (10, count - 10)
  shown = found["images"]["regressed"]
  assert len(shown) == MAX_SHOWN
  assert [image["key"] for image in shown[-10:]] == [row.key for row in model[:10]]
  assert {image["model"] for image in shown[-10:]} == {"model"}
  expected = sorted(candidate[10:], key=lambda row: (-float(row.confidence), row.key))
  assert [image["key"] for image in shown[:-10]] == [row.key for row in expected[: MAX_SHOWN - 10]]
  assert len(_read(tmp_path / "regressed.csv")) == 1 + count
  assert len(found["images"]["fixed"]) == 10


def test_without_a_baseline_the_files_have_a_header_alone(tmp_path):
  found = _compare(tmp_path, Bucket({"model": _rows(3, "5")}), Plan(("model",)))
  assert found["comparison"]["model"]["verdict"] == "no baseline"
  assert (found["slices"], found["slices_beside"]) == ({}, {})
  assert found["images"] == {"regressed": [], "fixed": []}
  for name in CHANGES_FILES:
    (header,) = _read(tmp_path / name)
    assert header[:2] == ["file_name", "actual_digit"]


def test_slices_alone(tmp_path):
  (tmp_path / "m.csv").write_text("file_name,=writer\n000.jpg,=1\n001.jpg,=1\n002.jpg,w2\n")
  found = _run(
    _write_parts(tmp_path / ".parts", {"model": [*_rows(4, "5")[:3], *_rows(5, "6")[3:]]}, 2),
    CompareNights(
      output=str(tmp_path),
      models=["model"],
      manifest=str(tmp_path / "m.csv"),
      min_slice_size=2,
      slices_only=True,
    ),
    tmp_path,
  )
  assert (found["comparison"], found["images"]) == ({}, {})
  assert found["slices"]["model"]["=writer"]["=1"]["correct"] == 2
  assert not [name for name in CHANGES_FILES if (tmp_path / name).exists()]
  assert (tmp_path / SLICES_FILE).read_text() == (
    "model,column,kind,value,pictures,correct,accuracy,accuracy_low,accuracy_high\n"
    "model,'=writer,value,'=1,2,2,1.000000,0.342380,1.000000\n"
    "model,'=writer,small,,1,1,1.000000,0.206549,1.000000\n"
    "model,'=writer,unlisted,,2,0,0.000000,0.000000,0.657620\n"
  )
  assert slices_csv({}).count("\n") == 1


def test_an_image_that_could_not_be_used_may_be_in_the_manifest(tmp_path):
  (tmp_path / "m.csv").write_text("file_name,w\n000.jpg,1\n=bad.jpg,1\n")
  reports = _write_parts(tmp_path / ".parts", {"model": _rows(1, "5")}, 3, ["=bad.jpg"])
  step = CompareNights(output=str(tmp_path), models=["model"], manifest=str(tmp_path / "m.csv"))
  assert _run(reports, step, tmp_path)["slices_beside"]["model"]["w"]["small"]["pictures"] == 1


def _sentence(tmp_path: Path, tonight: Sequence[Row], **more: Any) -> str:
  """Returns what the job, or its construction, says; no file is written then."""
  reports = _write_parts(tmp_path / ".parts", {"model": tonight}, 3)
  with pytest.raises(Exception, match=r"\S") as raised:
    _run(
      reports,
      CompareNights(output=str(tmp_path), models=["model"], **more),
      tmp_path,
    )
  assert not [name for name in (*CHANGES_FILES, SLICES_FILE) if (tmp_path / name).exists()]
  return user_sentence(raised.value) or f"no InputError but {raised.value!r}"


def test_a_baseline_of_other_images_is_told(tmp_path):
  others = [row._replace(key=f"other/{row.key}") for row in _rows(5, "5")]
  baseline = _write_predictions(tmp_path / "baseline.csv", others)
  assert _sentence(tmp_path, _rows(7, "5"), baseline=baseline, baseline_name=NIGHT) == (
    "the baseline 2026-11-23 has none of tonight's 7 images (it has 5 others): give --baseline NIGHT, --baseline none,"
    " or another --input."
  )


def test_a_row_of_the_manifest_without_an_image_is_told(tmp_path):
  (tmp_path / "m.csv").write_text("file_name,w\n000.jpg,1\nno.jpg,1\n" + "".join(f"n{n}.jpg,1\n" for n in range(9)))
  assert _sentence(tmp_path, _rows(7, "5"), manifest=str(tmp_path / "m.csv")) == (
    f"{tmp_path}/m.csv: 10 rows have no evaluated image; the first is 'no.jpg' in line 3: remove such rows,"
    " or give another --input or --split."
  )


@pytest.mark.parametrize("rows", ["000.jpg,1\n001.jpg\n", "000.jpg,1\n001.jpg,1\n000.jpg,2\n"])
def test_damage_further_down_a_manifest_is_told(tmp_path, rows):
  (tmp_path / "m.csv").write_text(f"file_name,w\n{rows}")
  sentence = _sentence(tmp_path, _rows(2, "5"), manifest=str(tmp_path / "m.csv"))
  assert sentence.startswith(f"{tmp_path}/m.csv: line")


@pytest.mark.parametrize(
  ("damage", "words"),
  [
    (lambda text: text.replace("91.0000", "much"), "'much' of '002.jpg' is not a confidence, so the file is damaged"),
    (lambda text: text.replace("91.0000", "nan"), "'nan' of '002.jpg' is not a confidence"),
    (lambda text: text[: text.rindex(",")], "line 4 has 13 cells instead of 14"),
    (lambda text: text.replace("90.0000", "\udcff"), "cannot be read as predictions ('utf-8' codec can't decode"),
    (lambda text: text.replace("90.0000", "9" * 200_000), "cannot be read as predictions (field larger than"),
  ],
)
def test_a_damaged_baseline_is_told(tmp_path, damage, words):
  path = tmp_path / "baseline.csv"
  _write_predictions(path, [*_rows(2, "5"), _rows(3, "5", 91)[2]])
  path.write_text(damage(path.read_text()), errors="surrogateescape")
  sentence = _sentence(tmp_path, _rows(3, "5"), baseline=str(path))
  assert words in sentence
  assert str(path) in sentence


def test_what_is_no_baseline_or_no_manifest_is_told_before_the_job(tmp_path):
  (tmp_path / "some.csv").write_text("a,b\n1,2\n")

  def construct(**more: str) -> None:
    CompareNights(output="", models=["model"], **more)

  with pytest.raises(InputError, match=r"some\.csv has no column 'file_name': give a predictions\.csv"):
    construct(baseline=str(tmp_path / "some.csv"))
  with pytest.raises(InputError, match=r"none\.csv cannot be read as predictions .* give another --baseline"):
    construct(baseline=str(tmp_path / "none.csv"))
  with pytest.raises(InputError, match=r"some\.csv has no column 'file_name' \(its columns: 'a', 'b'\)"):
    construct(manifest=str(tmp_path / "some.csv"))
  with pytest.raises(InputError, match=r"none\.csv cannot be read \(.*\): give another --manifest"):
    construct(manifest=str(tmp_path / "none.csv"))
  with pytest.raises(InputError, match=r"cannot be read \(.*\): give another --manifest"):
    construct(manifest=str(tmp_path))


def test_rows_cross_the_shuffle_as_few_elements():
  picks = random.Random(5)
  rows = [Row(f"{number}\n.jpg", "5", '"', str(picks.random()), "") for number in range(500)]
  packed = list(compare_nights._pack("baseline", iter(rows), 7))
  assert sorted(bucket for bucket, _ in packed) == list(range(7))
  assert {kind for _, (kind, _) in packed} == {"baseline"}
  assert sorted(Row(*cells) for _, (_, squeezed) in packed for cells in compare_nights._expand(squeezed)) == sorted(
    rows
  )
  again = {bucket: squeezed for bucket, (_, squeezed) in compare_nights._pack("baseline", reversed(rows[:250]), 7)}
  for bucket, (_, squeezed) in packed:
    of_bucket = {cells[0] for cells in compare_nights._expand(squeezed)}
    assert {cells[0] for cells in compare_nights._expand(again[bucket])} == of_bucket & {row.key for row in rows[:250]}
