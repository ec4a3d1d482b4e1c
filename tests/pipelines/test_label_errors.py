"""`evaluate --label_errors` on real digits, some of them in the folder of another label."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from beam_retrain.pipelines import evaluate
from beam_retrain.pipelines.serve.corrections import Corrections
from beam_retrain.pipelines.serve.images import Images
from beam_retrain.pipelines.serve.review import Review, open_evaluation
from beam_retrain.transforms.core.errors import InputError

MOVED = 30


def _rows(path: Path) -> list[dict[str, str]]:
  with path.open(newline="") as file:
    return list(csv.DictReader(file))


def _spoil(made: Any, data: Path) -> set[str]:
  """Copies the digits, moves some to wrong folders and saves two of them a little darker; returns the moved keys."""
  shutil.copytree(made.data, data)
  moved = set()
  for number in range(MOVED):
    path = next(data.glob(f"*/{40 * number}.png"))
    wrong = made.names[(made.names.index(path.parent.name) + 1 + number % 8) % len(made.names)]
    path.rename(data / wrong / path.name)
    moved.add(f"{wrong}/{path.name}")
  for number, folder in ((7, None), (11, made.names[0])):
    (path,) = data.glob(f"*/{number}.png")
    pixels = np.asarray(Image.open(path))
    darker = np.where(pixels > 100, pixels - 2, pixels)
    Image.fromarray(darker).save((data / folder if folder else path.parent) / f"near{number}.png")
  return moved


@pytest.fixture(scope="module")
def spoiled(make_once: Callable, made: Any) -> tuple[Path, set[str]]:
  def make(work: Path) -> None:
    moved = _spoil(made, work / "data")
    (work / "moved.json").write_text(json.dumps(sorted(moved)))
    flags = [f"--reuse={made.bottlenecks}", "--label_errors", f"--output={work / 'evaluation'}"]
    assert evaluate.run([f"--model={made.model}", f"--input={work / 'data'}", *flags]) == 0

  work = make_once("spoiled-digits", make)
  return work / "evaluation", set(json.loads((work / "moved.json").read_text()))


def test_moved_images_come_first_and_their_labels_are_suggested(spoiled: Any, made: Any) -> None:
  folder, moved = spoiled
  rows = _rows(folder / "suspicious_labels.csv")
  assert list(rows[0])[:5] == ["file_name", "actual_digit", "predicted_digit", "confidence", "sha256"]
  assert [row["rank"] for row in rows] == [str(rank) for rank in range(1, len(rows) + 1)]
  errors = [row for row in rows if row["suggested_digit"]]
  assert rows[: len(errors)] == errors
  keys = {row["file_name"].removeprefix("'") for row in errors}
  assert len(keys & moved) >= 0.6 * MOVED
  assert len(keys & moved) >= 0.9 * len(keys)
  assert all(float(row["out_of_fold_confidence"]) < 50 for row in errors)
  found = json.loads((folder / "metrics.json").read_text())["suspicious_labels"]
  assert found == {"threshold": 0.95, "pictures": len(rows), "label_errors": len(errors)}
  assert f"{len(errors)} labels are likely wrong" in (folder / "report.html").read_text()


def test_near_duplicates_are_in_leaks_by_cosine_and_perceptual_hash(spoiled: Any, made: Any) -> None:
  folder, _ = spoiled
  near = {row["file_name"].removeprefix("'"): row for row in _rows(folder / "leaks.csv") if row["like"]}
  for number, kind in ((7, "near_duplicates"), (11, "near_different_labels")):
    (row,) = [row for key, row in near.items() if key.endswith(f"/near{number}.png")]
    assert row["kind"] == kind
    assert row["like"].endswith(f"/{number}.png")
    assert float(row["cosine"]) > 0.99
    assert int(row["hash_distance"]) <= 2
  assert {row["hash_distance"] for row in near.values()} <= {str(bits) for bits in range(11)}
  counted = json.loads((folder / "stats.json").read_text())["leaks"]["near_different_labels"]
  assert counted["images"] == sum(row["kind"] == "near_different_labels" for row in near.values()) >= 2


def test_the_review_takes_ranks_suggestions_and_near_duplicates(spoiled: Any, made: Any, tmp_path: Path) -> None:
  folder, _ = spoiled
  opened = Corrections(str(tmp_path / "corrections.csv"))
  review = Review(*open_evaluation(str(folder)), opened, Images(), list(made.names))
  rows = _rows(folder / "suspicious_labels.csv")
  suspicious = [item for item in review.items if "suspicious" in item.ranks]
  suspicious.sort(key=lambda item: item.ranks["suspicious"])
  assert [item.sha256 for item in suspicious] == [row["sha256"] for row in rows]
  assert suspicious[0].suggested == rows[0]["suggested_digit"].removeprefix("'")
  (twin,) = [item for item in review.items if item.key.endswith("/near7.png")]
  assert "near-duplicates" in twin.kinds
  assert any(words.startswith("near-duplicate, cosine 0.99") for _, words in twin.like)
  assert not any("leaks" in item.kinds and "near-duplicates" in item.kinds for item in review.items)


def test_without_stored_bottlenecks_it_says_what_to_give(made: Any, tmp_path: Path) -> None:
  with pytest.raises(InputError, match=r"--label_errors looks at stored bottlenecks: give .* --reuse"):
    evaluate.run([f"--model={made.model}", f"--input={made.data}", f"--output={tmp_path / 'e'}", "--label_errors"])
