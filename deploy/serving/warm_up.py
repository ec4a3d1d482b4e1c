"""Writes the requests with which TensorFlow Serving warms up a model.

Its first request would wait for the graph to be optimised. Serving replays the requests of
`assets.extra/tf_serving_warmup_requests` before it takes others: a TFRecord file of PredictionLog messages. They come
with tensorflow-serving-api, which tfx-bsl depends on.
"""

from __future__ import annotations

import argparse
import pathlib

from beam_retrain.transforms.core.system.imports import load_tensorflow


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("version", type=pathlib.Path, help="a copy of the saved_model, as models/flowers/1")
  parser.add_argument("images", type=pathlib.Path, nargs="+", help="of sizes as they will come; one request each")
  arguments = parser.parse_args()
  for needed in (arguments.version / "saved_model.pb", *arguments.images):
    if not needed.is_file():
      parser.error(f"{needed} is no file: give a copy of the saved_model, and images.")
  load_tensorflow()  # without its words about this machine
  import tensorflow as tf
  from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

  file = arguments.version / "assets.extra" / "tf_serving_warmup_requests"
  file.parent.mkdir(exist_ok=True)
  with tf.io.TFRecordWriter(str(file)) as writer:
    for image in arguments.images:
      request = predict_pb2.PredictRequest()
      request.model_spec.name = arguments.version.resolve().parent.name
      request.model_spec.signature_name = "serving_default"
      request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([image.read_bytes()]))
      request.inputs["key"].CopyFrom(tf.make_tensor_proto([image.name]))
      log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
      writer.write(log.SerializeToString())
  print(f"{file}: {len(arguments.images)} request{'s' * (len(arguments.images) != 1)}")


if __name__ == "__main__":
  main()
