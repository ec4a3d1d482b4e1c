import pytest

from beam_retrain.pipelines.cli import main

TOKEN = "0123456789abcdef"


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (("--host=0.0.0.0",), "give a --token, too"),
    (("--token=short",), "openssl rand -hex 16"),
    (("--token=@/nowhere",), "cannot be read from /nowhere"),
    (("--name=a/b",), "cannot be part of an address"),
    (("--host=192.0.2.1", f"--token={TOKEN}"), "give another --port, or another --host"),
    (("--history=/nowhere",), "/nowhere is no folder"),
    (("--evaluation=/nowhere",), "/nowhere does not exist"),
    (("--bottlenecks=/nowhere",), "/nowhere does not exist"),
  ],
)
def test_what_cannot_be_served_is_said_in_one_sentence(made, flags, words, capsys):
  assert main(["serve", f"--model={made.model}", "--port=0", *flags]) == 2
  shown = capsys.readouterr()
  assert shown.out == ""
  assert words in shown.err
  assert shown.err.count("\n") == 1
