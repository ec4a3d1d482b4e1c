"""What deploy/README.md says of TensorFlow Serving, taken by the exported model."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from tests.helpers import ROOT


@pytest.fixture(scope="module")
def version(tmp_path_factory, trained_model) -> Path:
  return shutil.copytree(trained_model / "saved_model", tmp_path_factory.mktemp("models") / "flowers" / "1")


def test_the_warm_up_requests_are_taken_by_the_signature(version, small_images):
  images = [small_images / "black" / "1.png", small_images / "white" / "0.jpg"]
  script = [sys.executable, str(ROOT / "deploy" / "serving" / "warm_up.py"), str(version), *map(str, images)]
  environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
  ended = subprocess.run(script, capture_output=True, text=True, env=environment, check=True)
  assert (ended.stdout.count("\n"), ended.stderr) == (1, "")
  signature = tf.saved_model.load(str(version)).signatures["serving_default"]
  records = list(tf.data.TFRecordDataset(str(version / "assets.extra" / "tf_serving_warmup_requests")))
  assert len(records) == 2
  for record, image in zip(records, images, strict=True):
    request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
    assert (request.model_spec.name, request.model_spec.signature_name) == ("flowers", "serving_default")
    answer = signature(**{name: tf.constant(tf.make_ndarray(tensor)) for name, tensor in request.inputs.items()})
    assert answer["key"].numpy().tolist() == [image.name.encode()]
    assert answer["label"].numpy().tolist() == [image.parent.name.encode()]


@pytest.mark.parametrize(("folder", "image"), [("1", "nowhere.jpg"), ("nowhere", "black/1.png")])
def test_a_warm_up_of_what_is_not_there_is_one_sentence(version, small_images, folder, image):
  script = [sys.executable, str(ROOT / "deploy" / "serving" / "warm_up.py")]
  given = [str(version.parent / folder), str(small_images / image)]
  ended = subprocess.run([*script, *given], capture_output=True, text=True, check=False)
  assert ended.returncode == 2
  assert " is no file: give " in ended.stderr
  assert "Traceback" not in ended.stderr


def test_the_body_that_curl_sends_is_taken_by_the_signature(version, small_images, tmp_path):
  (data,) = re.findall(r'^curl --data (".*") localhost', (ROOT / "deploy" / "README.md").read_text(), re.MULTILINE)
  shutil.copy(small_images / "white" / "0.jpg", tmp_path / "photo.jpg")
  shown = subprocess.run(["bash", "-c", f"printf %s {data}"], cwd=tmp_path, check=True, capture_output=True, text=True)
  inputs = json.loads(shown.stdout)["inputs"]
  given = {
    name: tf.constant([base64.b64decode(one["b64"]) if isinstance(one, dict) else one for one in values])
    for name, values in inputs.items()
  }
  answer = tf.saved_model.load(str(version)).signatures["serving_default"](**given)
  assert answer["label"].numpy().tolist() == [b"white"]
  assert {"label", "confidence", "top_labels", "top_scores", "scores"} <= set(answer)
