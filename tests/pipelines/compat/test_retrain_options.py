"""The flags of retrain.py: all of them, and one sentence for each value that it would have crashed on."""

import contextlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from beam_retrain.pipelines.compat.retrain import make_parser, put_outputs, run
from beam_retrain.pipelines.compat.retrain_stages import bottlenecks_stage, train_request, train_stage
from beam_retrain.transforms.core.errors import InputError
from tests.helpers import ROOT

# Of retrain.py of tensorflow/hub, examples/image_retraining, by hand: name -> default.
_SCRIPT = {
  "image_dir": None,
  "output_graph": "/tmp/output_graph.pb",
  "intermediate_output_graphs_dir": "/tmp/intermediate_graph/",
  "intermediate_store_frequency": 0,
  "output_labels": "/tmp/output_labels.txt",
  "summaries_dir": "/tmp/retrain_logs",
  "how_many_training_steps": 4000,
  "learning_rate": 0.01,
  "testing_percentage": 10,
  "validation_percentage": 10,
  "eval_step_interval": 10,
  "train_batch_size": 100,
  "test_batch_size": -1,
  "validation_batch_size": 100,
  "print_misclassified_test_images": False,
  "bottleneck_dir": "/tmp/bottleneck",
  "final_tensor_name": "final_result",
  "flip_left_right": False,
  "random_crop": 0,
  "random_scale": 0,
  "random_brightness": 0,
  "tfhub_module": "https://tfhub.dev/google/imagenet/inception_v3/feature_vector/3",
  "saved_model_dir": "",
  "logging_verbosity": "INFO",
  "checkpoint_path": "/tmp/_retrain_checkpoint",
}


@pytest.fixture
def images(tmp_path) -> Path:
  """Two class folders of 20 files that are named like images; nothing here opens one."""
  for label in ("a", "b"):
    (tmp_path / "images" / label).mkdir(parents=True)
    for number in range(20):
      (tmp_path / "images" / label / f"{number}.jpg").write_bytes(b"")
  return tmp_path / "images"


def arguments(folder: Path, *more: str) -> list[str]:
  """Everything below one folder; a flag that is given again wins."""
  paths = {
    "image_dir": "images",
    "output_graph": "out/graph.pb",
    "output_labels": "out/labels.txt",
    "summaries_dir": "logs",
    "bottleneck_dir": "bottlenecks",
    "checkpoint_path": "checkpoints/head",
    "intermediate_output_graphs_dir": "intermediate",
  }
  return [*(f"--{name}={folder / path}" for name, path in paths.items()), "--tfhub_module=bundled", *more]


def test_all_25_flags_are_there_with_their_defaults():
  assert len(_SCRIPT) == 25
  parser = make_parser()
  (group,) = (group for group in parser._action_groups if group.title == "flags of retrain.py")
  assert {action.dest: action.default for action in group._group_actions} == _SCRIPT
  flags = parser.parse_args(["--image_dir=x"])
  assert {name: getattr(flags, name) for name in _SCRIPT} == {**_SCRIPT, "image_dir": "x"}


def test_help_shows_both_groups():
  shown = make_parser().format_help()
  script, own = shown.split("flags of retrain.py:")[1].split("flags that retrain.py did not have:")
  assert all(f"--{name}" in script for name in _SCRIPT)
  for name in ("work_dir", "split_hash", "distortion_copies", "distortion_seed", "on_leak", "max_bad_fraction"):
    assert f"--{name}" in own
  for name in ("seed", "trunk_weights", "trunk_input_px", "model_dir"):
    assert f"--{name}" in own


@pytest.mark.parametrize(
  ("given", "sentence"),
  [
    ("--image_dir=", "--image_dir is missing: give a folder of folders of images"),
    ("--image_dir=nowhere", "--image_dir nowhere is not a folder"),
    ("--image_dir=gs://bucket/images", "--image_dir gs://bucket/images is remote"),
    ("--output_graph=", "--output_graph: the path is empty"),
    ("--output_graph=FOLDER/images", "--output_graph FOLDER/images is a folder"),
    ("--output_graph=FOLDER/new/", "--output_graph FOLDER/new/ is a folder"),
    ("--output_graph=FOLDER/file/graph.pb", "--output_graph FOLDER/file/graph.pb cannot be written: FOLDER/file"),
    ("--output_graph=gs://bucket/graph.pb", "--output_graph gs://bucket/graph.pb is remote"),
    ("--output_labels=", "--output_labels: the path is empty"),
    ("--output_labels=FOLDER/images", "--output_labels FOLDER/images is a folder"),
    ("--output_labels=FOLDER/out/graph.pb", "--output_graph and --output_labels are both FOLDER/out/graph.pb"),
    ("--intermediate_store_frequency=often", "--intermediate_store_frequency: 'often' is not a whole number"),
    ("--intermediate_output_graphs_dir=FOLDER/file", "FOLDER/file is not a folder"),
    ("--summaries_dir=", "--summaries_dir: the path is empty"),
    ("--summaries_dir=FOLDER/file", "FOLDER/file is not a folder"),
    ("--how_many_training_steps=0", "--how_many_training_steps: 0 is not at least 1"),
    ("--how_many_training_steps=1e3", "--how_many_training_steps: '1e3' is not a whole number"),
    ("--learning_rate=0", "--learning_rate: '0' is not a number above 0"),
    ("--learning_rate=nan", "--learning_rate: 'nan' is not a number above 0"),
    ("--learning_rate=fast", "--learning_rate: 'fast' is not a number above 0"),
    ("--testing_percentage=0", "--testing_percentage: 0 leaves one of training, validation and testing without"),
    ("--testing_percentage=-5", "--testing_percentage: -5 leaves one of"),
    ("--testing_percentage=ten", "--testing_percentage: 'ten' is not a whole number"),
    ("--testing_percentage=90", "--testing_percentage 90 and --validation_percentage 10 leave nothing to train on"),
    ("--validation_percentage=0", "--validation_percentage: 0 leaves one of"),
    ("--validation_percentage=100", "--validation_percentage: 100 leaves one of"),
    ("--eval_step_interval=0", "--eval_step_interval: 0 is not at least 1"),
    ("--train_batch_size=0", "--train_batch_size: 0 is not at least 1"),
    ("--test_batch_size=0", "--test_batch_size: 0 is too few; -1 takes all images"),
    ("--validation_batch_size=0", "--validation_batch_size: 0 is too few; -1 takes all images"),
    ("--bottleneck_dir=", "--bottleneck_dir: the path is empty"),
    ("--bottleneck_dir=FOLDER/file", "--work_dir FOLDER/file/beam_retrain cannot be written: FOLDER/file"),
    ("--bottleneck_dir=FOLDER/images", "overlaps with --image_dir FOLDER/images: give another --work_dir"),
    ("--work_dir=FOLDER", "overlaps with --image_dir FOLDER/images: give another --work_dir"),
    ("--saved_model_dir=FOLDER/images/a/model", "is in FOLDER/images, which --image_dir reads: give another --saved_"),
    ("--final_tensor_name=", "--final_tensor_name '' is not a valid name of a TensorFlow operation"),
    ("--final_tensor_name=my result", "--final_tensor_name 'my result' is not a valid name of a TensorFlow operation"),
    ("--final_tensor_name=result:0", "--final_tensor_name 'result:0' is not a valid name"),
    ("--final_tensor_name=Placeholder", "--final_tensor_name Placeholder is reserved"),
    ("--flip_left_right=True", "--flip_left_right: ignored explicit argument 'True'"),
    ("--random_crop=-10", "--random_crop: -10 is not at least 0"),
    ("--random_scale=-10", "--random_scale: -10 is not at least 0"),
    ("--random_brightness=much", "--random_brightness: 'much' is not a whole number"),
    ("--tfhub_module=", "--tfhub_module: the trunk is empty"),
    (
      "--saved_model_dir=FOLDER/images",
      "FOLDER/images is in FOLDER/images, which --image_dir reads: give ",
    ),
    ("--saved_model_dir=FOLDER/file", "--saved_model_dir FOLDER/file is a file"),
    ("--logging_verbosity=LOUD", "--logging_verbosity: invalid choice: 'LOUD'"),
    ("--checkpoint_path=", "--checkpoint_path: the path is empty"),
    ("--checkpoint_path=FOLDER/images", "--checkpoint_path FOLDER/images is a folder"),
    ("--checkpoint_path=FOLDER/file/head", "FOLDER/file is not a folder"),
    ("--seed=x", "--seed: 'x' is not a whole number"),
    ("--seed=-1", "--seed: -1 is not between 0 and"),
    ("--random_brightness=300", "--random_brightness 300 is not in 0..100"),
    ("--random_scale=1000", "times as wide as the trunk's input"),
    ("--distortion_copies=0", "--distortion_copies: 0 is not at least 1"),
    ("--distortion_copies=2", "--distortion_copies needs a distortion"),
    ("--split_hash=md5", "--split_hash: invalid choice: 'md5'"),
    (
      "--output_grph=x",
      "--output_grph: neither this command nor Beam has this flag; the nearest flag is --output_graph.",
    ),
    ("--architecture=x", "--architecture: neither this command nor Beam has this flag"),
  ],
)
def test_a_value_that_cannot_be_used_is_one_sentence_before_any_work(given, sentence, images, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "file").write_text("")
  given, sentence = (text.replace("FOLDER", str(tmp_path)) for text in (given, sentence))
  more = ["--intermediate_store_frequency=10"] if given.startswith("--intermediate_output") else []
  with pytest.raises(InputError) as raised:
    run(arguments(tmp_path, *more, given))
  said = str(raised.value)
  assert sentence in said
  assert "\n" not in said
  assert "beam-retrain train" not in said
  written = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".jpg"]
  assert [path.name for path in written if path.name != "file"] == []


def test_nothing_is_written_among_the_text_bottlenecks(images, tmp_path):
  texts = tmp_path / "bottlenecks" / "a"
  with pytest.raises(InputError, match=f"--work_dir {texts}/w is in {texts}, which --bottleneck_dir reads: give anoth"):
    run(arguments(tmp_path, f"--work_dir={texts}/w"))
  assert not texts.exists()


def test_all_that_is_not_given_is_what_the_stages_are_told(tmp_path):
  flags = make_parser().parse_args(["--image_dir=x", "--tfhub_module=t"])
  assert bottlenecks_stage(flags, "o").words() == [
    f"--input={Path.cwd() / 'x'}",
    "--retrain_names",
    "--trunk=t",
    "--testing_percentage=10",
    "--validation_percentage=10",
    "--split_hash=stable",
  ]
  assert train_stage(train_request(flags, "i", "o")).words() == [
    "--preset=retrain",
    "--training_steps=4000",
    "--learning_rate=0.01",
    "--batch_size=100",
    "--eval_step_interval=10",
    "--validation_batch_size=100",
    "--seed=0",
    "--final_tensor_name=final_result",
    "--summaries_dir=/tmp/retrain_logs",
    "--intermediate_output_graphs_dir=/tmp/intermediate_graph",
    "--intermediate_store_frequency=0",
    "--checkpoint_path=/tmp/_retrain_checkpoint",
  ]


def test_all_that_is_given_reaches_the_stages():
  flags = make_parser().parse_args(
    [
      *("--image_dir=./x/", "--tfhub_module=keras:InceptionV3", "--trunk_weights=w.h5", "--trunk_input_px=150"),
      *("--testing_percentage=20", "--validation_percentage=5", "--split_hash=legacy", "--flip_left_right"),
      *("--random_crop=1", "--random_scale=2", "--random_brightness=3", "--distortion_copies=6"),
      *("--distortion_seed=7", "--on_leak=drop", "--how_many_training_steps=8", "--learning_rate=0.5"),
      *("--train_batch_size=9", "--eval_step_interval=11", "--validation_batch_size=-7", "--seed=12"),
      *("--final_tensor_name=scores", "--summaries_dir=/s", "--intermediate_output_graphs_dir=/i"),
      *("--intermediate_store_frequency=13", "--checkpoint_path=/c"),
    ]
  )
  assert bottlenecks_stage(flags, "o").words() == [
    "--input=./x/",
    "--retrain_names",
    "--trunk=keras:InceptionV3",
    "--trunk_weights=w.h5",
    "--trunk_input_px=150",
    "--testing_percentage=20",
    "--validation_percentage=5",
    "--split_hash=legacy",
    "--flip_left_right",
    "--random_crop=1",
    "--random_scale=2",
    "--random_brightness=3",
    "--distortion_copies=6",
    "--distortion_seed=7",
    "--on_leak=drop",
  ]
  assert train_stage(train_request(flags, "i", "o")).words() == [
    "--preset=retrain",
    "--training_steps=8",
    "--learning_rate=0.5",
    "--batch_size=9",
    "--eval_step_interval=11",
    "--validation_batch_size=-1",
    "--seed=12",
    "--final_tensor_name=scores",
    "--summaries_dir=/s",
    "--intermediate_output_graphs_dir=/i",
    "--intermediate_store_frequency=13",
    "--checkpoint_path=/c",
  ]


@pytest.mark.parametrize(
  ("names", "sentence"),
  [
    ([], "has no folders of .jpg, .jpeg or .png files"),
    (["a/1.jpg"], "has only one class, 'a': a classifier needs at least two."),
    (["a/1.jpg", "b/2.txt"], "has only one class, 'a'"),
    (
      ["Big Cat/1.jpg", "big-cat/2.jpg", "dog/3.jpg"],
      "the folders 'Big Cat' and 'big-cat' both get the label 'big cat'",
    ),
  ],
)
def test_images_of_fewer_than_two_labels_or_two_folders_of_one(names, sentence, tmp_path):
  (tmp_path / "images").mkdir()
  for name in names:
    (tmp_path / "images" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "images" / name).write_bytes(b"")
  with pytest.raises(InputError, match=re.escape(sentence)):
    run(arguments(tmp_path))


def test_the_warnings_of_the_script(images, tmp_path, capsys):
  (images / "b" / "19.jpg").unlink()
  (images / "notes").mkdir()
  said = warnings(tmp_path, capsys, "--model_dir=inception/")
  assert said == [
    "WARNING: --model_dir inception/ does nothing, as in retrain.py, which ignored it: --tfhub_module names the trunk.",
    "WARNING: Folder notes has no images named .jpg, .jpeg or .png: it is left out.",
    "WARNING: Folder b has less than 20 images, which may cause issues.",
  ]
  assert warnings(tmp_path, capsys, "--logging_verbosity=ERROR") == []


def warnings(folder: Path, capsys, *more: str) -> list[str]:
  (folder / "theirs").mkdir(exist_ok=True)
  (folder / "theirs" / "model").touch()
  with contextlib.suppress(InputError):  # it ends after the warnings
    run(arguments(folder, f"--saved_model_dir={folder / 'theirs'}", *more))
  return [line for line in capsys.readouterr().err.splitlines() if line.startswith("WARNING")]


@pytest.mark.parametrize(
  ("flag", "lock"), [("work_dir", "bottlenecks/beam_retrain/.lock"), ("output_graph", "out/.graph.pb.lock")]
)
def test_two_runs_do_not_write_to_the_same_place(flag, lock, images, tmp_path):
  (tmp_path / lock).parent.mkdir(parents=True)
  code = "import sys\nfrom beam_retrain.transforms.core.system.locks import hold\n"
  code += "with hold(sys.argv[1]): print(flush=True); sys.stdin.read()"
  with subprocess.Popen(
    [sys.executable, "-c", code, str(tmp_path / lock)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    cwd=ROOT,
  ) as other:
    assert other.stdout is not None
    other.stdout.readline()
    with pytest.raises(InputError, match=f"another run is writing to .*: wait until it ends, or give another --{flag}"):
      run(arguments(tmp_path))
    other.communicate()


def test_a_saved_model_goes_where_a_link_leads(tmp_path):
  trained, real, link = tmp_path / "work" / "train", tmp_path / "real", tmp_path / "link"
  (trained / "saved_model").mkdir(parents=True)
  for name in ("retrained_graph.pb", "retrained_labels.txt", "saved_model/saved_model.pb"):
    (trained / name).write_bytes(b"x")
  real.mkdir()
  link.symlink_to(real)
  given = {"work_dir": "work", "output_graph": "graph.pb", "output_labels": "labels.txt", "saved_model_dir": "link"}
  put_outputs(make_parser().parse_args([f"--{flag}={tmp_path / name}" for flag, name in given.items()]))
  assert (real / "saved_model.pb").read_bytes() == b"x"
  assert link.is_symlink()
