"""`label_image` refuses wrong flags and files in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf

from beam_retrain.pipelines.cli import main
from beam_retrain.pipelines.compat.label_image import read_file
from beam_retrain.transforms.core.errors import InputError
from tests.pipelines.compat.label_image_suite import (
  convolutional,
  graphs,
  here,
  images_placeholder,
  labels,
  old_graph,
  tf1_graph,
  v1,
  without_size,
  write_graph,
)

__all__ = ["graphs", "here", "labels", "old_graph", "tf1_graph"]  # fixtures


def reads_files() -> str:
  stored = tf.io.decode_raw(tf.io.read_file("/etc/hostname"), tf.uint8)
  images = images_placeholder(None, 24, 24, 3) + tf.cast(tf.size(stored), tf.float32)
  return convolutional(images, "scores")


def with_others() -> str:
  v1.placeholder(tf.string, [], name="comment")
  v1.placeholder(tf.float32, [None, 48], name="vectors")
  images = images_placeholder(None, 24, 24, 3)
  tf.nn.softmax(tf.constant([[1.0, 2.0, 3.0]]), name="constant")
  return convolutional(images, "scores")


@pytest.fixture(scope="module")
def others_graph(graphs, labels) -> list[str]:
  path = graphs / "others.pb"
  with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
    output = with_others()
    session.run(v1.global_variables_initializer())
    frozen = v1.graph_util.convert_variables_to_constants(
      session, graph.as_graph_def(), [output, "constant", "comment", "vectors"]
    )
  path.write_bytes(frozen.SerializeToString())
  return [f"--graph={path}", f"--labels={labels}"]


def refused(flags: list[str], small_images: Path, capsys) -> str:
  """Checks that both modes refuse the flags before anything is written; returns the sentence."""
  said = []
  for mode in (["--process_mode=1", f"--image={small_images}/grey/0.jpg"], ["--process_mode=2"]):
    directory = [f"--directory_name={small_images}"] if mode[0].endswith("2") else []
    assert main(["label_image", *mode, *directory, *flags]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    said.append(shown.err)
    assert list(Path.cwd().iterdir()) == []
  assert said[0] == said[1]
  assert said[0].count("\n") == 1
  return said[0]


@pytest.mark.parametrize(
  ("flags", "sentence"),
  [
    (
      [],
      "has no operation 'input': give --input_layer=images; and it has no operation"
      " 'InceptionV3/Predictions/Reshape_1': give --output_layer=scores.",
    ),
    (["--input_layer=import/images", "--output_layer=scores"], "'import/images': give --input_layer=images."),
    (["--input_layer=images", "--output_layer=score"], "'score': give --output_layer=scores."),
    (
      ["--input_layer=vectors", "--output_layer=scores"],
      "takes float32 (None, 48), not images: give --input_layer=images.",
    ),
    (["--input_layer=comment", "--output_layer=scores"], "takes string (), not images: give --input_layer=images."),
    (["--input_layer=images", "--output_layer=constant"], "constant of {graph} is not computed from images"),
    (["--input_layer=images", "--output_layer=images"], "images of {graph} is not computed from images"),
    (
      ["--input_layer=images", "--output_layer=Conv2D"],
      "{labels} has 3 labels, but Conv2D of {graph} gives 288 scores per image",
    ),
    (
      ["--input_layer=images", "--output_layer=scores", "--input_width=299"],
      "takes (None, 24, 24, 3), not --input_width=299: leave --input_width out.",
    ),
    (["--input_std=0"], "argument --input_std: cannot divide by 0"),
    (["--input_mean=nan"], "argument --input_mean: nan is not a finite number"),
    (["--input_height=0"], "argument --input_height: 0 is not at least 1"),
    (["--process_mode=3"], "argument --process_mode: invalid choice: 3"),
    (["--imput_layer=images"], "the nearest flag is --input_layer."),
  ],
)
def test_wrong_flags_are_one_sentence(flags, sentence, others_graph, small_images, here, capsys):
  graph, labels = (flag.split("=")[1] for flag in others_graph)
  if flags and flags[0].startswith(("--process_mode", "--imput")):
    assert main(["label_image", *others_graph, *flags]) == 2
    assert sentence in capsys.readouterr().err
  else:
    assert sentence.format(graph=graph, labels=labels) in refused([*others_graph, *flags], small_images, capsys)


def test_the_old_graphs_input_is_found_though_it_is_no_placeholder(old_graph, small_images, here, capsys):
  flags = [*old_graph.flags, "--input_layer=Placeholder"]
  assert "'Placeholder': give --input_layer=Mul or sub or ResizeBilinear or ExpandDims." in refused(
    flags, small_images, capsys
  )


def test_labels_of_another_length_are_one_sentence(tf1_graph, small_images, tmp_path, here, capsys):
  labels = tmp_path / "two.txt"
  labels.write_text("black\ngrey\n")
  sentence = refused([*tf1_graph.flags, f"--labels={labels}"], small_images, capsys)
  assert f"{labels} has 2 labels, but net/probabilities of {tf1_graph.path} gives 3 scores per image" in sentence


@pytest.mark.parametrize(
  ("flag", "content", "sentence"),
  [
    ("graph", None, "does not exist: give a file as --graph."),
    ("graph", b"", "is not a frozen graph"),
    ("graph", b"\xff no graph", "is not a frozen graph"),
    ("labels", None, "does not exist: give a file as --labels."),
    ("labels", b"\n\n", "is empty"),
    ("labels", b"\xff\xfe", "is not UTF-8 text"),
  ],
)
def test_files_that_are_something_else_are_one_sentence(
  flag, content, sentence, tf1_graph, small_images, tmp_path, here, capsys
):
  path = tmp_path / "given"
  if content is not None:
    path.write_bytes(content)
  assert f"{path} {sentence}" in refused([*tf1_graph.flags, f"--{flag}={path}"], small_images, capsys)


def test_the_graph_in_a_folder_of_run_is_named(tmp_path):
  (tmp_path / "train").mkdir()
  (tmp_path / "train" / "retrained_graph.pb").touch()
  with pytest.raises(InputError, match=rf"is a folder: give --graph {tmp_path}/train/retrained_graph.pb\.$"):
    read_file(str(tmp_path), "graph")


@pytest.mark.parametrize(
  ("build", "freeze", "sentence"),
  [(without_size, False, "has variables"), (reads_files, True, "operations that no image classifier needs (ReadFile)")],
)
def test_a_graph_that_is_more_than_a_frozen_one_is_refused(
  build, freeze, sentence, graphs, labels, small_images, here, capsys
):
  path = write_graph(graphs, f"{build.__name__}_{freeze}.pb", build, freeze)
  flags = [f"--graph={path}", f"--labels={labels}", "--input_layer=images", "--output_layer=scores"]
  assert sentence in refused(flags, small_images, capsys)


@pytest.mark.parametrize(
  ("flags", "sentence"),
  [
    (["--directory_name=x"], "--directory_name is for --process_mode=2: add that, or give --image."),
    (["--image=x", "--output=y"], "--output is for --process_mode=2"),
    (["--image=nowhere.jpg"], "nowhere.jpg does not exist: give a file as --image."),
    (
      ["--process_mode=2", "--directory_name=nowhere"],
      "nowhere does not exist: give a folder of images as --directory_name.",
    ),
    (["--process_mode=2", "--directory_name=."], "the CSV would be written into --directory_name . itself"),
    (
      ["--process_mode=2", "--directory_name=none"],
      "none has no files: give a folder of images as --directory_name.",
    ),
  ],
)
def test_what_is_not_there_is_one_sentence(flags, sentence, tf1_graph, here, capsys):
  (here / "none").mkdir()
  assert main(["label_image", *tf1_graph.flags, *flags]) == 2
  shown = capsys.readouterr().err
  assert sentence in shown
  assert shown.count("\n") == 1
  assert [path.name for path in here.iterdir()] == ["none"]
