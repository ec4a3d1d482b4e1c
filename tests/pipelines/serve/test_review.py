import json
from pathlib import Path

import pytest

from beam_retrain.pipelines.serve.corrections import ConflictError, Corrections
from beam_retrain.pipelines.serve.images import Images
from beam_retrain.pipelines.serve.review import Review, open_evaluation
from beam_retrain.transforms.core.corrections import Correction
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.metrics.predictions import HEADER
from beam_retrain.transforms.core.records.leaks import LeakedImage, leaks_csv

A, B, C = ("a" * 64, "b" * 64, "c" * 64)
LABELS = ["=cat", "cow", "dog"]


@pytest.fixture
def review(tmp_path: Path) -> Review:
  """A mistake twice under two labels, another mistake, and a right one."""
  rows = [("1.png", "'=cat", "dog", "99.5", A), ("2.png", "cow", "dog", "99.5", A), ("3.png", "dog", "cow", "60.0", B)]
  rows.append(("4.png", "dog", "dog", "98.0", C))
  folder = tmp_path / "evaluation"
  folder.mkdir()
  (folder / "info.json").write_text(json.dumps({"stage": "evaluate", "settings": {"input": str(tmp_path)}}))
  lines = [
    f"{key},{actual},{predicted},{confidence},{actual == predicted},now,,,,,,{sha256},all"
    for key, actual, predicted, confidence, sha256 in rows
  ]
  (folder / "predictions.csv").write_text(HEADER + "\n".join(lines) + "\n")
  suspicious = ["file_name,actual_digit,predicted_digit,confidence,sha256", f"1.png,'=cat,dog,99.5,{A}"]
  (folder / "suspicious_labels.csv").write_text("\n".join(suspicious) + "\n")
  copies = [
    LeakedImage(A, key, "all", label, ("different_labels",), ("=cat", "cow"))
    for key, label in (("1.png", "=cat"), ("2.png", "cow"))
  ]
  (folder / "leaks.csv").write_text(leaks_csv(copies))
  (folder / "COMPLETED").write_text("")
  return Review(*open_evaluation(str(folder)), Corrections(str(tmp_path / "corrections.csv")), Images(), LABELS)


def test_each_image_is_listed_once_with_all_its_reasons(review):
  found = [(item.key, item.label, item.predicted, item.confidence, item.kinds) for item in review.items]
  assert found == [
    ("1.png", "=cat", "dog", 99.5, ["mistakes", "suspicious", "leaks"]),
    ("2.png", "cow", "dog", 99.5, ["mistakes", "leaks"]),
    ("3.png", "dog", "cow", 60.0, ["mistakes"]),
  ]
  assert review.items[0].like == [(review.items[1].image, "the same image, cow")]
  assert review.items[2].like == []


@pytest.mark.parametrize(
  ("decision", "label", "first", "second"),
  [
    ("keep", "", ("=cat", "keep"), ("=cat", "relabel")),
    ("relabel", "dog", ("dog", "relabel"), ("dog", "relabel")),
    ("relabel", "cow", ("cow", "relabel"), ("cow", "keep")),
    ("drop", "dog", ("", "drop"), ("", "drop")),
    ("unsure", "dog", ("", "unsure"), ("", "unsure")),
  ],
)
def test_a_decision_holds_for_all_copies_of_the_bytes(review, decision, label, first, second):
  review.decide(0, A, decision, label, "a\nnote", None)
  assert review.decisions() == {
    0: Correction("=cat", *first, "a\\nnote"),
    1: Correction("cow", *second, "a\\nnote"),
  }
  review.decide(0, A, None, "", "", review.decisions()[0])
  assert review.decisions() == {}


@pytest.mark.parametrize(
  ("index", "sha256", "decision", "label"),
  [
    (3, A, "keep", ""),
    (-1, B, "keep", ""),
    (0, B, "keep", ""),
    (0, A, "burn", ""),
    (0, A, "relabel", "elk"),
    (0, A, "", ""),
  ],
)
def test_what_is_no_decision_changes_nothing(review, index, sha256, decision, label):
  with pytest.raises(InputError, match=r"\.$"):
    review.decide(index, sha256, decision, label, "", None)
  assert review.decisions() == {}


def test_only_what_was_seen_is_replaced(review):
  review.decide(2, B, "keep", "", "", None)
  with pytest.raises(ConflictError):
    review.decide(2, B, "drop", "", "", None)
  review.decide(2, B, "drop", "", "", review.decisions()[2])
  assert review.decisions()[2].decision == "drop"
