"""The article's CSV, line by line."""

from __future__ import annotations

import csv
import io
import random

import numpy as np
import pytest

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.metrics import predictions
from beam_retrain.transforms.core.metrics.label_stats import Outcome
from beam_retrain.transforms.core.metrics.predictions import (
  COLUMNS,
  HEADER,
  MAX_PER_CELL,
  LabelError,
  Mistakes,
  Row,
  Scored,
  part_line,
  predict,
  read_part,
  read_predictions,
  row_of,
  whole_line,
)

LABELS = ["zebra", "ant", "mule", "=cmd"]
SHA256 = "ab" * 32
WHEN = "Tue Nov 24 08:05:11 2026"


def _scored(scores: list[float], actual: str = "ant", key: str = "testing/ant/1.jpg") -> Scored:
  return Scored(key, actual, SHA256, np.array(scores, np.float32))


def predictions_lines(parts):
  yield HEADER
  for part in parts:
    for model, cells in read_part(part):
      assert model == "model"
      yield whole_line(cells, WHEN)


def _rows(*lines: bytes) -> list[dict[str, str]]:
  text = "".join(predictions_lines([[line.decode()] for line in lines]))
  return list(csv.DictReader(io.StringIO(text, newline="")))


def test_the_articles_columns_come_first_spelled_as_there() -> None:
  (header,) = predictions_lines([])
  assert header.startswith(
    "file_name,actual_digit,predicted_digit,confidence,prediction_accuracy,Execution time,second_digit,"
  )
  assert header == ",".join(COLUMNS) + "\n"


def test_names_are_compared_not_positions() -> None:
  prediction = predict(_scored([0.1, 0.2, 0.625, 0.075]), LABELS)
  assert prediction.outcome == Outcome("ant", "mule", 0.625, pytest.approx(0.2), 2)
  (row,) = _rows(part_line("model", prediction, "testing"))
  assert row == {
    "file_name": "testing/ant/1.jpg",
    "actual_digit": "ant",
    "predicted_digit": "mule",
    "confidence": "62.5000",
    "prediction_accuracy": "False",
    "Execution time": WHEN,
    "second_digit": "ant",
    "second_confidence": "20.0000",
    "third_digit": "zebra",
    "third_confidence": "10.0000",
    "margin": "42.5000",
    "sha256": SHA256,
    "split": "testing",
  }


def test_right_is_true() -> None:
  (row,) = _rows(part_line("model", predict(_scored([0.1, 0.7, 0.1, 0.1]), LABELS), "all"))
  assert (row["predicted_digit"], row["prediction_accuracy"]) == ("ant", "True")


def test_of_equal_scores_the_first_in_the_label_list_wins() -> None:
  labels = [f"label{number}" for number in range(100)]
  prediction = predict(_scored([0.0, 0.02] * 50, actual="label41"), labels)
  assert [label for label, _ in prediction.top] == ["label1", "label3", "label5"]
  assert prediction.outcome.actual_rank == 21


def test_a_model_of_two_labels_has_no_third() -> None:
  (row,) = _rows(part_line("model", predict(_scored([0.25, 0.75]), LABELS[:2]), "all"))
  assert (row["second_digit"], row["third_digit"], row["third_confidence"]) == ("zebra", "", "")
  assert (row["margin"], row["split"]) == ("50.0000", "all")


def test_a_label_that_the_model_lacks_is_an_error() -> None:
  with pytest.raises(ValueError, match="yak"):
    predict(_scored([0.25] * 4, actual="yak"), LABELS)


def test_cells_that_a_spreadsheet_would_run_are_escaped() -> None:
  scored = _scored([0.1, 0.1, 0.1, 0.7], actual="=cmd", key="=HYPERLINK(1)/+1.jpg")
  (row,) = _rows(part_line("model", predict(scored, LABELS), "all"))
  assert row["file_name"] == "'=HYPERLINK(1)/+1.jpg"
  assert (row["actual_digit"], row["predicted_digit"], row["prediction_accuracy"]) == ("'=cmd", "'=cmd", "True")


def test_a_name_with_commas_quotes_and_line_ends_stays_one_cell() -> None:
  key = 'a/b,"c"\r\nd\u00e9.jpg'
  line = part_line("model", predict(_scored([0.1, 0.7, 0.1, 0.1], key=key), LABELS), "all")
  # As a file gives it: one text line at a time, line ends untouched.
  part = io.StringIO(line.decode() * 2, newline="")
  rows = list(csv.DictReader(io.StringIO("".join(predictions_lines([part])), newline="")))
  assert [row["file_name"] for row in rows] == [key, key]
  assert [row["Execution time"] for row in rows] == [WHEN, WHEN]


def test_parts_come_one_after_the_other_under_one_header() -> None:
  lines = [
    part_line("model", predict(_scored([0.1, 0.7, 0.1, 0.1], key=f"all/ant/{number}.jpg"), LABELS), "all")
    for number in range(5)
  ]
  text = "".join(predictions_lines([[line.decode() for line in part] for part in (lines[:2], [], lines[2:])]))
  assert [row["file_name"] for row in csv.DictReader(io.StringIO(text))] == [f"all/ant/{n}.jpg" for n in range(5)]


def test_a_row_reads_the_same_from_a_part_and_from_the_whole_file() -> None:
  scored = _scored([0.1, 0.7, 0.1, 0.1], actual="=cmd", key='testing/=cmd/a,"b".jpg')
  line = part_line("candidate", predict(scored, LABELS), "testing").decode()
  ((model, cells),) = read_part([line])
  row = row_of(cells)
  assert model == "candidate"
  assert row == Row('testing/=cmd/a,"b".jpg', "'=cmd", "ant", "70.0000", SHA256)
  assert not row.right
  ((_, cells),) = read_part([line])
  whole = HEADER + whole_line(cells, WHEN)
  assert list(read_predictions(io.StringIO(whole, newline=""), "some.csv")) == [row]


def test_a_file_without_a_column_is_told() -> None:
  with pytest.raises(InputError, match=r"old\.csv has no column 'sha256'"):
    list(read_predictions(["file_name,actual_digit,predicted_digit,confidence\n"], "old.csv"))


def test_a_line_that_ends_too_early_is_told() -> None:
  with pytest.raises(InputError, match=r"cut\.csv: line 2 has 3 cells instead of 13"):
    list(read_predictions([HEADER, "a,b,c\n"], "cut.csv"))


def _mistake(key: str, actual: str, predicted: str, confidence: float) -> Row:
  return Row(key, actual, predicted, f"{confidence:.4f}", "ab" * 32)


def _seen(rows: list[Row]) -> Mistakes:
  found = Mistakes()
  for row in rows:
    found.add(row)
  return found


def _draw_mistakes(count: int) -> list[Row]:
  rng = random.Random(5)
  labels = "abcd"
  return [_mistake(f"{n:05d}.jpg", rng.choice(labels), rng.choice(labels), rng.randint(30, 100)) for n in range(count)]


def test_every_kind_of_mistake_comes_before_the_second_of_any() -> None:
  rows = [
    _mistake("1", "a", "b", 99),
    _mistake("2", "a", "b", 98),
    _mistake("3", "c", "a", 40),
    _mistake("4", "a", "a", 100),
  ]
  assert [row.key for row in _seen(rows).shown()] == ["1", "3", "2"]


def test_what_is_shown_does_not_depend_on_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(predictions, "MAX_SUSPICIOUS", 20)
  rows = _draw_mistakes(3000)
  first = _seen(rows)
  random.Random(1).shuffle(rows)
  second = _seen(rows)
  assert first.shown() == second.shown()
  assert first.shown(100) == first.shown()[:100]
  assert first.suspicious() == second.suspicious()
  wrong = [row for row in rows if not row.right]
  best = sorted(wrong, key=lambda row: (-float(row.confidence), row.key))
  assert first.suspicious() == best[:20]
  assert first.suspicious_count == sum(float(row.confidence) >= 95 for row in wrong) > 20
  assert len(first.shown(100)) == 100
  assert first.shown()[0] == best[0]
  of_cell = [row for row in best if (row.actual, row.predicted) == ("a", "b")]
  assert [row for row in first.shown(100) if (row.actual, row.predicted) == ("a", "b")] == of_cell[: 100 // 12]


def test_a_cell_is_bounded() -> None:
  assert len(_seen([_mistake(str(n), "a", "b", 50) for n in range(100)]).shown()) == MAX_PER_CELL


def test_below_the_threshold_nothing_is_suspicious() -> None:
  found = _seen([_mistake("1", "a", "b", 94.9999), _mistake("2", "a", "b", 95), _mistake("3", "a", "a", 100)])
  assert [row.key for row in found.suspicious()] == ["2"]


def test_the_table_of_suspicious_labels_has_errors_first_then_confident_mistakes() -> None:
  seen = [("1", "b", 99), ("2", "a", 100), ("3", "b", 97), ("4", "b", 9)]
  rows = [_mistake(key, "a", predicted, confidence) for key, predicted, confidence in seen]
  plain = list(_seen(rows).suspicious_table())
  assert [(*row[:1], *row[5:]) for row in plain] == [("file_name", "rank"), ("1", 1), ("3", 2)]
  found = Mistakes({"2": LabelError(1, 0.0123, "=b", 0.3), "3": LabelError(2, 0.25, "b", 0)})
  for row in rows:
    found.add(row)
  header, *table = found.suspicious_table()
  assert header[5:] == ("rank", "out_of_fold_confidence", "suggested_digit", "agreeing_neighbours")
  assert [[row[0], *row[5:]] for row in table] == [
    ["2", 1, "1.2300", "'=b", "30"],
    ["3", 2, "25.0000", "b", "0"],
    ["1", 3, "", "", ""],
  ]
  assert found.suspicious_count == 3


def test_right_images_are_drawn_by_digest_labels_with_mistakes_first() -> None:
  numbers = [(n, label) for n in range(60) for label in "abc"]
  rows = [Row(f"{label}{n}.png", label, label, "99.0000", f"{n * 7919 % 997:064x}") for n, label in numbers]
  rows.append(_mistake("wrong.png", "c", "a", 70))
  found = _seen(rows).right()
  assert found == _seen(rows[::-1]).right()
  for label in "abc":
    of_label = [row.sha256 for row in found if row.actual == label]
    assert of_label == sorted(row.sha256 for row in rows if row.actual == label and row.right)[:4]
  assert found[0].actual == "c"
  assert sorted(row.actual for row in _seen(rows).right(limit=3)) == ["a", "b", "c"], "one of each before the second"
