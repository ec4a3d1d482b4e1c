"""Event files are those that TensorFlow writes."""

from __future__ import annotations

import tensorflow as tf

from beam_retrain.trainer.fit.tensorboard import EventFile


def test_an_event_file_as_tensorflow_writes_it(tmp_path):
  times = iter([1700000000.5, 1700000000.5, 1700000001.25])
  file = EventFile(str(tmp_path), clock=lambda: next(times))
  file.write(7, {"a": 0.5, "b": -2.0})
  # Read before it is closed: a killed run leaves no less.
  events = list(tf.compat.v1.train.summary_iterator(str(tmp_path / "events.out.tfevents.1700000000.beam_retrain")))
  file.close()
  assert [(event.wall_time, event.step) for event in events] == [(1700000000.5, 0), (1700000001.25, 7)]
  assert events[0].file_version == "brain.Event:2"
  reference = tf.summary.create_file_writer(str(tmp_path / "reference"))
  metadata = tf.compat.v1.SummaryMetadata(
    plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"), data_class=1
  )
  with reference.as_default():
    tf.summary.write("a", tf.constant(0.5), step=7, metadata=metadata)
  reference.close()
  (path,) = (tmp_path / "reference").iterdir()
  version, by_tensorflow = tf.compat.v1.train.summary_iterator(str(path))
  assert version.file_version == events[0].file_version
  assert (events[1].summary.value[0].tag, events[1].summary.value[0].metadata) == (
    by_tensorflow.summary.value[0].tag,
    by_tensorflow.summary.value[0].metadata,
  )
  assert tf.make_ndarray(events[1].summary.value[0].tensor) == tf.make_ndarray(by_tensorflow.summary.value[0].tensor)
  assert events[1].summary.value[0].tensor.dtype == by_tensorflow.summary.value[0].tensor.dtype
