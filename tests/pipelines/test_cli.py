"""`beam-retrain` as a person types it."""

import pytest

from beam_retrain.pipelines.cli import COMMANDS, main


def test_help_names_every_command_and_exit_code(capsys):
  assert main(["--help"]) == 0
  shown = capsys.readouterr().out
  assert all(f"\n  {command} " in shown for command in COMMANDS)
  for code in ("0 done", "1 a gate", "2 wrong usage", "3 more bad inputs"):
    assert code in shown


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("ask", [lambda command: [command, "--help"], lambda command: ["help", command]])
def test_each_command_teaches(command, ask, capsys):
  with pytest.raises(SystemExit) as left:
    main(ask(command))
  assert left.value.code == 0
  shown = capsys.readouterr().out
  assert shown.startswith(f"usage: beam-retrain {command}")
  assert f"beam-retrain {command} " in shown.split("options:")[0] + shown.split("example")[-1]


def test_without_a_command_it_is_wrong_usage(capsys):
  assert main([]) == 2
  assert "beam-retrain COMMAND" in capsys.readouterr().out


def test_version(capsys):
  assert main(["--version"]) == 0
  assert capsys.readouterr().out.startswith("beam-retrain 0.")


@pytest.mark.parametrize(
  ("argv", "sentence"),
  [
    (["bottleneck"], "there is no command 'bottleneck'; the nearest is `beam-retrain bottlenecks`."),
    (["convert", "--ouput=x"], "--ouput: neither this command nor Beam has this flag; the nearest flag is --output."),
    (
      ["bottlenecks", "--runer=FnApiRunner"],
      "--runer: neither this command nor Beam has this flag; the nearest flag is --runner.",
    ),
    (["flowers"], "there is no command 'flowers'; `beam-retrain --help` lists them."),
    (["--config", "a.toml"], "--config comes after the command, as in `beam-retrain run --config a.toml`."),
    (["train", "--lr=1"], "--lr: unknown flag; see `beam-retrain train --help`."),
    (["bottlenecks", "--testing_percent=1"], "the nearest flag is --testing_percentage."),  # not Beam's
    (["train", "--inptu=x"], "--inptu: unknown flag; the nearest flag is --input."),
    (["train", "--testing_percentage=20"], "--testing_percentage: unknown flag; `run`, `bottlenecks`, `plan`"),
    (["run", "--input=x"], "--input: neither this command nor Beam has this flag; images are given as --data."),
    (["label_image", "--min_accuracy=1"], "; `run`, `evaluate`, `reevaluate` have it."),
    (["run", "--output=x", "--trunk_weight=y"], "the nearest flag is --trunk_weights."),
    (["evaluate", "--input=x", "--output=y"], "required: --model"),
    (
      ["predict", "--model=nowhere", "x.jpg"],
      "nowhere does not exist: give the folder that `beam-retrain train` wrote, or that of `beam-retrain run`.",
    ),
    (["run", "--data=nowhere", "--output=x"], "nowhere does not exist: give digits, mnist, or the path of a folder"),
  ],
)
def test_wrong_usage_is_one_sentence_and_2(argv, sentence, capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert main(argv) == 2
  shown = capsys.readouterr()
  assert shown.out == ""
  assert shown.err.startswith(("beam-retrain: ", f"beam-retrain {argv[0]}: "))
  assert sentence in shown.err
  assert shown.err.count("\n") == 1
