"""Shells complete commands and flags."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from beam_retrain.pipelines import cli

_BASH = """
source "$1"
shift
function=$(complete -p beam-retrain | sed 's/.* -F \\([^ ]*\\) .*/\\1/')
COMP_WORDS=(beam-retrain "$@")
COMP_CWORD=$#
$function
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> Path:
  """The script for bash."""
  path = tmp_path_factory.mktemp("completion") / "beam-retrain"
  path.write_text(cli.complete_in("bash"))
  return path


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
@pytest.mark.parametrize(
  ("typed", "completed"),
  [
    (["eval"], {"evaluate"}),
    (["re"], {"reevaluate", "retrain"}),
    (["train", "--learning"], {"--learning_rate"}),
    (["run", "--data", "digits", "--min_acc"], {"--min_accuracy"}),
    (["bottlenecks", "--precision", "b"], {"bfloat16"}),
    (["cache", "--print_c"], {"--print_config"}),
    (["run", "--data", "photo"], {"photos"}),
    (["predict", "--model", "out", "photo"], {"photos"}),
  ],
)
def test_bash_completes(script, typed, completed, tmp_path):
  (tmp_path / "photos").mkdir()
  command = ["bash", "--norc", "-c", _BASH, "bash", script, *typed]
  shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
  assert (set(shown.stdout.split()), shown.stderr) == (completed, "")


@pytest.mark.parametrize(("shell", "line"), [("zsh", "#compdef beam-retrain\n"), ("fish", "complete -c beam-retrain ")])
def test_other_shells_have_their_own(shell, line, capsys):
  assert cli.main(["--print_completion", shell]) == 0
  shown = capsys.readouterr().out
  assert line in shown
  assert "learning_rate" in shown


@pytest.mark.parametrize("argv", [["--print_completion"], ["--print_completion=tcsh"], ["--print_completion", "cmd"]])
def test_other_shells_are_refused(argv, capsys):
  assert cli.main(argv) == 2
  assert capsys.readouterr().err == "beam-retrain --print_completion needs a shell: give bash, zsh or fish.\n"
