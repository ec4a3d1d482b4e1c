"""The figures of a night for Prometheus, read back by the rules of its text format."""

from __future__ import annotations

import dataclasses
import os
import re

import pytest

from beam_retrain.reporting.gates import judge
from beam_retrain.reporting.prometheus import prometheus_text
from beam_retrain.transforms.core.metrics.metrics_file import metrics_from_json, model_from_json, model_to_json

_SAMPLE = re.compile(r'(\w+)\{((?:\w+="(?:[^"\\\n]|\\["\\n])*",?)*)\} (\S+)')


def _text(labels: dict[str, tuple[int, int]], **entries: object) -> str:
  per_label = {
    label: {"support": support, "correct": right, "recall": right / support if support else None}
    for label, (right, support) in labels.items()
  }
  model = model_from_json(
    {
      **{"accuracy": 0.945, "correct": 189, "total": 200, "accuracy_interval_95": [0.914, 0.969]},
      **{"labels": list(labels), "per_label": per_label},
    }
  )
  judged = model_to_json(
    dataclasses.replace(model, gates=judge(model, {"min_accuracy": 0.98, "min_label_recall": 0.1}))
  )
  return prometheus_text(metrics_from_json({**judged, **entries}), "/srv/nights")


def _read(text: str) -> dict[tuple[str, str], float]:
  samples = {}
  for line in text.splitlines():
    if not line.startswith("#"):
      match = _SAMPLE.fullmatch(line)
      assert match, line
      history, *labels = match[2].split(",", 1)
      assert history == 'history="/srv/nights"'
      samples[match[1], "".join(labels)] = float(match[3])
  return samples


def test_each_figure_is_a_sample():
  bad = {"quarantined": 3, "inputs": 203, "allowed": 0.1, "too_many": False}
  compared = {"comparison": {"baseline": "2026-11-23", "paired": 199, "regressed": 3, "fixed": 1, "drop": 0.01}}
  night = {"night": "2026-11-24", **compared}
  assert _read(_text({"7": (99, 100), "1": (90, 100), "0": (0, 0)}, bad_inputs=bad, **night)) == {
    ("beam_retrain_images", 'model="model"'): 200,
    ("beam_retrain_accuracy", 'model="model"'): 0.945,
    ("beam_retrain_recall", 'model="model",label="7"'): 0.99,
    ("beam_retrain_recall", 'model="model",label="1"'): 0.9,
    ("beam_retrain_gate_missed", 'model="model",gate="min_accuracy"'): 1,
    ("beam_retrain_gate_missed", 'model="model",gate="min_label_recall"'): 0,
    ("beam_retrain_drop", 'model="model"'): 0.01,
    ("beam_retrain_regressed", 'model="model"'): 3,
    ("beam_retrain_fixed", 'model="model"'): 1,
    ("beam_retrain_bad_inputs", 'model="model"'): 3,
    ("beam_retrain_night_timestamp_seconds", ""): 1795478400,
  }


def test_each_name_has_its_help_and_type_once_before_its_samples():
  lines = _text({"a": (1, 2), "b": (1, 2)}).splitlines()
  for name in {line.split("{")[0] for line in lines if not line.startswith("#")}:
    first = next(index for index, line in enumerate(lines) if line.startswith(f"{name}{{"))
    assert lines[first - 2].startswith(f"# HELP {name} ")
    assert lines[first - 1] == f"# TYPE {name} gauge"
    assert sum(line == f"# TYPE {name} gauge" for line in lines) == 1


@pytest.mark.parametrize("label", ['a"b', "a\\b", "a\\", 'x"} 1\nbeam_retrain_accuracy{model="model'])
def test_a_label_stays_inside_its_quotes(label):
  samples = _read(_text({label: (1, 2), "other": (1, 2)}))
  found = [labels for name, labels in samples if name == "beam_retrain_recall" and "other" not in labels]
  (value,) = re.findall(r'label="((?:[^"\\]|\\.)*)"', found[0])
  assert value.replace(r"\n", "\n").replace(r"\"", '"').replace("\\\\", "\\") == label


def test_a_history_whose_name_is_no_text_is_written():
  model = model_from_json({"accuracy": 1.0, "correct": 1, "total": 1, "accuracy_interval_95": [0.2, 1.0]})
  text = prometheus_text(metrics_from_json(model_to_json(model)), os.fsdecode(b"/srv/\xff"))
  assert 'history="/srv/\ufffd"' in text.encode().decode()
