"""What a label may be, and which texts are one label."""

import pytest

from beam_retrain.transforms.core.labels import is_label, normalise


@pytest.mark.parametrize(
  ("text", "label"),
  [
    (" cat\n", "cat"),
    ("cafe\u0301", "caf\u00e9"),
    ("\u9ed2\u3000\u732b", "\u9ed2 \u732b"),
    ("hot\u00a0dog", "hot dog"),
    ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),
    ("\U0001f468\u200d\U0001f467", "\U0001f468\u200d\U0001f467"),
  ],
)
def test_what_is_written_in_any_script_is_a_label(text, label):
  assert normalise(text) == label
  assert is_label(label)


@pytest.mark.parametrize("text", ["", "\u200d", "a\nb", "a\tb", "\u202ecat", "\ufeffcat", "\x1b[31m", "a\x00"])
def test_what_would_change_what_is_shown_beside_it_is_none(text):
  assert not is_label(normalise(text))
