"""The linter of English: sentences that version 0.4 had are found, those of today are not."""

import pytest

from tools.prose import MOST_WORDS, check, check_python

_OLD = {
  "What is chosen, said and kept.": "What is chosen",
  "what the machine has left, where memory is short": "where memory is short",
  "A model that takes less at a time where memory is short": "where memory is short",
  "who waits for the answers of one that has died is told": "is told",
  "What Beam says is kept from the terminal, and told where it is needed": "kept from",
  "The life of a stage's output folder": "The life of",
  "counts_pictures: then their number is told nobody": "is told",
  "A trunk, as this process has it.": "as this process has it",
  "What a job says of itself while it runs": "What a job says of itself",
  "What is hidden is nobody's picture.": "picture",
}


@pytest.mark.parametrize("sentence", _OLD)
def test_the_old_dialect_is_found(sentence):
  assert _OLD[sentence] in [found.words for found in check(sentence)]


@pytest.mark.parametrize(
  "sentence",
  [
    "Chooses and records threads, processes and batch size.",
    "Halves the batch size after an out-of-memory error.",
    "Hidden files are not images: .DS_Store, Thumbs.db.",
    "`--pictures 5000000` says how many images; `is told` is code.",
    "```\nwhat is said\n```\n",
  ],
)
def test_plain_english_is_not(sentence):
  assert list(check(sentence)) == []


def test_lines_are_those_of_the_file():
  assert [found.line for found in check("One.\n\n```\npicture\n```\n\nA picture.\n")] == [7]
  source = '"""Images."""\n\n\ndef f():\n  """What it does."""\n  # as it is told\n  return "a picture of it is here"\n'
  found = {(one.line, one.words) for one in check_python(source)}
  assert found == {(4, "What "), (6, "is told"), (7, "picture")}


def test_a_sentence_has_an_end():
  assert [one.advice[:9] for one in check(" ".join(["word"] * (MOST_WORDS + 1)) + ".")] == ["more than"]
  assert list(check(" ".join(["word"] * MOST_WORDS) + ". " + "word " * MOST_WORDS)) == []
