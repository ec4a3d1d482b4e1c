"""Flags come from a TOML file, and a command line becomes one."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from beam_retrain.pipelines import cli
from beam_retrain.pipelines.bottlenecks import BottlenecksRequest
from beam_retrain.pipelines.convert import ConvertRequest
from beam_retrain.pipelines.evaluate import EvaluateRequest
from beam_retrain.pipelines.predict import PredictRequest
from beam_retrain.pipelines.verify import VerifyRequest
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.run import config
from beam_retrain.transforms.core.run.config import to_toml


@pytest.fixture
def write(tmp_path):
  def write(text: str) -> str:
    (tmp_path / "my.toml").write_text(text)
    return f"--config={tmp_path / 'my.toml'}"

  return write


def test_every_command_may_have_a_table():
  assert tuple(cli.COMMANDS) == config.COMMANDS


def test_the_command_s_table_and_the_top_are_its_flags_and_the_command_line_wins(write):
  file = write(
    'input = "here"\nmax_pixels = 9\nreuse = ["a", "b"]\ndirect_num_workers = 2\nmin_accuracy = 0.5\nmanifest = ""\n'
    "[evaluate]\nmax_pixels = 10\ntranspose = true\nmin_label_recall = 0.25\n[train]\nrounds = 5\n"
  )
  request = EvaluateRequest.parse(["--output=out", file, "--model", "m", "--input=there", "--min_accuracy=0.75"])
  assert (request.input, request.max_pixels, request.reuse, request.transpose) == ("there", 10, ("a", "b"), True)
  assert dict(request.gates) == {"min_accuracy": 0.75, "min_label_recall": 0.25}
  assert request.beam_options == ("--direct_num_workers=2",)
  assert EvaluateRequest.parse(["--output=out", "--model=m", file, "--reuse=c"]).reuse == ("c",)


def test_places_and_lists(write):
  file = write('[predict]\nmodel = "m"\nimages = ["a.jpg", "b.jpg"]\n[convert]\nformats = ["png", "tfrecord"]\n')
  assert PredictRequest.parse([file]).images == ("a.jpg", "b.jpg")
  assert PredictRequest.parse([file, "--top", "2"]).images == ("a.jpg", "b.jpg")
  assert PredictRequest.parse([file, "--top", "2", "c.jpg"]).images == ("c.jpg",)
  assert ConvertRequest.parse([file, "--input=i", "--output=o"]).formats == ("png", "tfrecord")
  assert VerifyRequest.parse([write('same = ["a", "b"]')]).same == ("a", "b")


@pytest.mark.parametrize(
  ("text", "sentence"),
  [
    ("inptu = 'x'", "`beam-retrain bottlenecks` has no flag inptu; the nearest is input ("),
    ("lr = 0.1", "has no flag lr (flags of other commands"),
    ("[bottlenecks]\ndirect_num_worker = 2", "has no flag direct_num_worker; the nearest is direct_num_workers "),
    ("config = 'x'", "has no flag config"),
    ("[bottleneck]\ninput = 'x'", "[bottleneck] is no command; the nearest is [bottlenecks]."),
    ("transpose = 'yes'", "transpose is a switch: give true or false."),
    ("input = 1979-05-27", "input is neither text, a number, true or false, nor a list of these."),
    ("input = ", " is not TOML (Invalid value (at "),
    ("on_leak = 'never'", "argument --on_leak: invalid choice: 'never'"),
  ],
)
def test_what_is_no_flag_is_one_sentence(write, text, sentence):
  with pytest.raises(InputError) as error:
    BottlenecksRequest.parse([write(text), "--output=o"])
  assert sentence in str(error.value)
  assert "choice" in sentence or "my.toml" in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
  with pytest.raises(InputError, match=r"--config .*none.toml cannot be read \(No such file or directory\): give"):
    BottlenecksRequest.parse([f"--config={tmp_path / 'none.toml'}"])
  with pytest.raises(InputError, match="argument --config: expected one argument"):
    BottlenecksRequest.parse(["--config"])


@pytest.mark.parametrize(
  "argv",
  [
    ["--input=a b", "--output=out", "--classes=7", "--testing_percentage=12.5", "--transpose", "--runner=FnApiRunner"],
    ["--input", "-1", "--output", 'q"uo\\te', "--runner", "FnApiRunner", "--direct_num_workers", "2"],
    ["--input=é\u202e\x1b[2J\u00ad", "--output=0.10", "--reuse=1", "--reuse=0x1", "--trunk=True"],
  ],
)
def test_a_written_file_is_the_same_request(argv, write):
  text = to_toml("bottlenecks", argv)
  assert text.startswith("# beam-retrain bottlenecks --config THIS_FILE\n")
  assert all(character.isprintable() or character == "\n" for character in text)
  assert BottlenecksRequest.parse([write(text)]).to_argv() == BottlenecksRequest.parse(_joined(argv)).to_argv()


def _joined(argv: list[str]) -> list[str]:
  """Beam's flags as a file gives them, `--runner=X`."""
  if "--runner" not in argv:
    return argv
  return [f"{name}={value}" for name, value in zip(argv[::2], argv[1::2], strict=True)]


def test_values_keep_their_types_and_secrets_are_left_out():
  text = to_toml("run", ["--output=o", "--classes=7", "--min_accuracy=0.9", "--trunk=0123", "--s3_session_token=..."])
  assert tomllib.loads(text) == {"output": "o", "classes": 7, "min_accuracy": 0.9, "trunk": "0123"}
  assert "# --s3_session_token is not kept here: give it on the command line" in text
  assert tomllib.loads(to_toml("run", ["--output=\udcff"])) == {}


def test_how_much_is_printed_is_not_kept():
  assert tomllib.loads(to_toml("run", ["-q", "--output", "o", "--verbose"])) == {"output": "o"}


def test_print_config_does_nothing_else(capsys, tmp_path, monkeypatch, write):
  monkeypatch.chdir(tmp_path)
  file = write('data = "digits"\noutput = "out"\n')
  flags = [file, "--classes", "7", "--s3_session_token=secret", "--runner", "FnApiRunner"]
  with pytest.raises(SystemExit) as left:
    cli.main(["run", *flags, "--print_config"])
  assert left.value.code == 0
  shown = capsys.readouterr().out
  assert tomllib.loads(shown) == {"data": "digits", "output": "out", "classes": 7, "runner": "FnApiRunner"}
  assert "secret" not in shown
  assert [path.name for path in Path.cwd().iterdir()] == ["my.toml"]
  assert cli.main(["doctor", "--print_config", "--timeout_sec=3"]) == 2


def test_print_config_takes_a_part_of_the_flags(capsys):
  with pytest.raises(SystemExit) as left:
    cli.main(["train", "--input=bottlenecks", "--print_config"])
  assert left.value.code == 0
  assert tomllib.loads(capsys.readouterr().out) == {"input": "bottlenecks"}
