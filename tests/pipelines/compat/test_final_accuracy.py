"""The final test as retrain.py made it."""

from collections import Counter
from collections.abc import Iterable

import pytest

from beam_retrain.pipelines.compat.retrain import draw_tested, final_accuracy
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.metrics.predictions import Row

_HEADER = "file_name,actual_digit,predicted_digit,confidence,prediction_accuracy,Execution time,sha256\n"


@pytest.fixture
def predictions(tmp_path) -> str:
  """90 images of `a`, of which 30 are taken for `b`, and 10 of `b`, all right."""
  path = tmp_path / "predictions.csv"
  lines = [
    f"{'a' if n < 90 else 'b'}/{n}.jpg,{'a' if n < 90 else 'b'},{'a' if 30 <= n < 90 else 'b'},50,x,now,0"
    for n in range(100)
  ]
  path.write_text(_HEADER + "\n".join(lines) + "\n")
  return str(path)


def named(tested: Iterable[tuple[Row, int]]) -> list[tuple[str, str, str, int]]:
  return [(row.key, row.actual, row.predicted, times) for row, times in tested]


def test_all_images_once(predictions):
  assert final_accuracy(predictions, -1, seed=0) == (0.7, 100)
  tested = list(draw_tested(predictions, -1, seed=0))
  assert named(tested)[0] == ("a/0.jpg", "a", "b", 1)
  assert [row.key.split("/")[1] for row, _ in tested] == [f"{number}.jpg" for number in range(100)]


def test_a_draw_takes_each_label_as_often_and_images_more_than_once(predictions):
  tested = list(draw_tested(predictions, 2000, seed=3))
  assert sum(times for _, times in tested) == 2000
  by_label = Counter()
  for row, times in tested:
    by_label[row.actual] += times
  assert 900 < by_label["a"] < 1100  # half of 2,000, not nine tenths; the standard deviation is 22
  times = [times for row, times in tested if row.actual == "b"]
  assert len(times) == 10
  assert min(times) > 60  # 100 on average, standard deviation 10
  accuracy, total = final_accuracy(predictions, 2000, seed=3)
  assert total == 2000
  assert accuracy == sum(times for row, times in tested if row.actual == row.predicted) / 2000
  assert 0.78 < accuracy < 0.88  # 5/6


def test_a_draw_is_the_same_for_the_same_seed(predictions):
  assert list(draw_tested(predictions, 20, seed=1)) == list(draw_tested(predictions, 20, seed=1))
  assert list(draw_tested(predictions, 20, seed=1)) != list(draw_tested(predictions, 20, seed=2))


def test_names_are_as_they_were_before_they_went_into_a_csv(tmp_path):
  path = tmp_path / "predictions.csv"
  path.write_text(_HEADER + "'=x/1\\r.jpg,'=x,b,50,False,now,0\n" + '"a/2,\n3.jpg",b,b,50,True,now,0\n')
  tested = draw_tested(str(path), -1, 0)
  assert named(tested) == [("=x/1\r.jpg", "=x", "b", 1), ("a/2,\n3.jpg", "b", "b", 1)]


def test_a_damaged_file_is_named(tmp_path):
  path = tmp_path / "predictions.csv"
  path.write_text(_HEADER + "a/1.jpg,a\n")
  with pytest.raises(InputError, match=r"predictions\.csv: line 2 has 2 cells instead of 7"):
    final_accuracy(str(path), 5, seed=0)
