"""What the terminal shows."""

from __future__ import annotations

from typing import Any

from beam_retrain.reporting.text_tables import align, changes_table, per_label_table
from beam_retrain.transforms.core.metrics.label_stats import evaluate_in_memory
from beam_retrain.transforms.core.metrics.metrics_file import metrics_from_json


def test_per_label_table() -> None:
  metrics = evaluate_in_memory(
    [("zebra", "zebra")] * 3 + [("zebra", "ant")] + [("ant", "ant")], ["zebra", "ant", "mule"]
  )
  assert per_label_table(metrics).split("\n") == [
    "label  support  correct  accuracy  precision    recall       f1  most confused with",
    "zebra        4        3   75.00 %   100.00 %   75.00 %  85.71 %  ant (1)",
    "ant          1        1  100.00 %    50.00 %  100.00 %  66.67 %  -",
    "mule         0        0         -          -         -        -  -",
  ]


def test_of_many_labels_the_worst_are_shown() -> None:
  labels = [f"label{number:03}" for number in range(100)]
  pairs = [(label, label) for label in labels[1:]] + [("label000", "label001")]
  table = per_label_table(evaluate_in_memory(pairs, labels), max_labels=3).split("\n")
  assert [line.split()[0] for line in table[1:4]] == ["label000", "label001", "label002"]
  assert table[4] == "(the 3 of 100 labels with the lowest F1; all are in per_label.csv)"
  assert len(table) == 5


def test_a_long_label_loses_its_middle() -> None:
  longest, longer = "a" * 40, "b" * 30 + "c" * 30
  table = per_label_table(evaluate_in_memory([(longest, longer), (longer, longer)], [longest, longer])).split("\n")
  shown = "b" * 19 + "..." + "c" * 18
  assert len(shown) == 40
  assert table[1].startswith(f"{longest}  ")
  assert table[1].endswith(f"  {shown} (1)")
  assert table[2].startswith(f"{shown}  ")
  escaped = per_label_table(evaluate_in_memory([("\x1b" * 30, "\x1b" * 30)], ["\x1b" * 30])).split("\n")[1]
  assert len(escaped.split()[0]) == 40


def test_a_label_cannot_steer_the_terminal() -> None:
  table = per_label_table(
    evaluate_in_memory([("\x1b[2Jb", "\x1b[2Jb"), ("caf\u00e9", "\x1b[2Jb")], ["\x1b[2Jb", "caf\u00e9"])
  )
  assert "\x1b" not in table
  assert "\\x1b[2Jb" in table
  assert "caf\u00e9" in table


def _changes(entries: dict[str, Any]) -> str:
  return changes_table(metrics_from_json(entries))


def test_changes_table() -> None:
  compared = {
    "baseline": "model",
    "regressed": 1200,
    "fixed": 3,
    "new": 0,
    "gone": 1,
    "edited": 2,
    "p_value": 1e-9,
  }
  first = dict.fromkeys(compared)
  lines = _changes({"accuracy": 0.5, "comparison": first, "candidate": {"accuracy": 0.25, "comparison": compared}})
  assert [line.split() for line in lines.splitlines()[1:]] == [
    ["model", "50.00", "%", "no", "baseline", "-", "-", "-", "-", "-", "-"],
    ["candidate", "25.00", "%", "the", "model", "1,200", "3", "0", "1", "2", "1e-09"],
  ]
  named_so = _changes({"accuracy": 0.5, "comparison": {**compared, "baseline": "model"}}).splitlines()[1]
  assert named_so.split()[3:5] == ["model", "1,200"]
  assert len(_changes({"accuracy": 0.5, "comparison": first}).splitlines()) == 2


def test_the_table_says_of_which_images_chance_was_asked() -> None:
  compared = {"baseline": "2026-11-23", "paired": 1_000, "regressed": 14, "fixed": 3, "p_value": 0.004}
  unseen = {"unseen_paired": 300, "unseen_regressed": 12, "unseen_fixed": 0}
  _, row, note = _changes({"accuracy": 0.5, "comparison": {**compared, **unseen}}).splitlines()
  assert row.split()[3:10] == ["2026-11-23", "12", "of", "14", "0", "of", "3"]
  assert note == "(of the regressed and fixed images, the first number were not trained on; p is of these alone)"


def test_align() -> None:
  assert (
    align(["a", "bb", "c"], [["xxx", "1", "left"], ["y", "1000", ""]]) == "a      bb  c\nxxx     1  left\ny    1000"
  )


def test_what_other_images_did_is_told_beside_the_table() -> None:
  compared = {
    "baseline": "2026-11-23",
    "paired": 216,
    "baseline_correct": 208,
    "correct": 207,
    "regressed": 1,
    "fixed": 0,
  }
  others = {"changed": 6, "changed_correct": 2, "changed_baseline_correct": 3, "new": 36, "new_correct": 0}
  others |= {"gone": 4, "gone_correct": 4}
  entries = {
    "accuracy": 0.8214,
    "comparison": {**compared, **others},
    "reference": {**compared, "baseline": "2026-01-01"},
  }
  _, model, reference, sentence = _changes(entries).splitlines()
  assert (model.split()[3], reference.split()[3:6]) == ("2026-11-23", ["the", "reference", "2026-01-01"])
  assert sentence == (
    "model against 2026-11-23: the accuracy on all images went from 96.36 % to 82.14 %: unchanged images from 97.62 %"
    " to 97.62 % (205 and 205 of 210 right), changed images from 50.00 % to 33.33 % (3 and 2 of 6 right), new images"
    " 0.00 % (0 of 36 right), gone images 100.00 % before (4 of 4 right)."
  )
