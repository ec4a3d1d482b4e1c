"""The script's CSV, and the names in it."""

import csv
import io

import numpy as np
import pytest

from beam_retrain.transforms.core.compat.digit_file import (
  HEADER,
  Answer,
  best,
  check_labels,
  parse_labels,
  part_line,
  single_line,
  whole_lines,
)
from beam_retrain.transforms.core.errors import InputError


def test_a_labels_file_is_one_label_a_line():
  assert parse_labels("\ufeffdaisy\r\nrose bush \n\nünder\n\n".encode(), "x") == ["daisy", "rose bush", "", "ünder"]


@pytest.mark.parametrize(
  ("data", "sentence"), [(b"", "x is empty"), (b" \n", "x is empty"), (b"\xff", "not UTF-8 text")]
)
def test_what_is_no_labels_file_is_refused(data, sentence):
  with pytest.raises(InputError, match=sentence):
    parse_labels(data, "x")


def test_as_many_labels_as_scores():
  check_labels(["a", "b"], 2, labels_path="l", graph_path="g", output_layer="o")
  with pytest.raises(InputError, match="l has 2 labels, but o of g gives 3 scores per image"):
    check_labels(["a", "b"], 3, labels_path="l", graph_path="g", output_layer="o")


def test_the_best_of_equal_scores_is_the_first():
  assert best(np.array([0.1, 0.4, 0.4, 0.1], np.float32), ["a", "b", "c", "d"]) == Answer(
    "b", 100 * float(np.float32(0.4))
  )


def test_lines_are_those_of_the_script():
  assert HEADER == "file_name,actual_digit,predicted_digit,confidence,prediction_accuracy,Execution time\r\n"
  part = part_line("a/7/1.jpg", "7", Answer("7", 99.5)) + part_line("a/7/2.jpg", "7", Answer("1", 1e-05))
  assert list(whole_lines(io.StringIO(part, newline=""), "Tue")) == [
    "a/7/1.jpg,7,7,99.5,True,Tue\r\n",
    "a/7/2.jpg,7,1,1e-05,False,Tue\r\n",
  ]
  assert single_line("a/7/1.jpg", Answer("7", 99.5)) == "a/7/1.jpg,7,99.5\r\n"


@pytest.mark.parametrize("name", ['=1+1,"x".jpg', "two\nlines.jpg", "@\r.jpg", "-ü.jpg"])
def test_no_name_breaks_the_file_or_runs(name):
  part = part_line(name, "+a", Answer("-b", 50.0))
  (line,) = whole_lines(io.StringIO(part, newline=""), "Tue")
  ((shown, actual, predicted, *_),) = csv.reader(io.StringIO(line, newline=""))
  assert not {shown[0], actual[0], predicted[0]} & set("=+-@\t\r")
  assert shown.removeprefix("'").replace("\\r", "\r") == name
  ((shown, predicted, _),) = csv.reader(io.StringIO(single_line(name, Answer("-b", 50.0)), newline=""))
  assert shown.removeprefix("'").replace("\\r", "\r") == name
  assert predicted == "'-b"
