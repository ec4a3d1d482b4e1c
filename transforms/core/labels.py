"""Labels, normalised once, wherever they come from."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")  # of Unicode's category Zs
_JOINERS = "\u200c\u200d"  # with which Persian, Hindi and emoji are spelled


def normalise(text: str) -> str:
  """Returns a label in NFC, with plain spaces, and none around it.

  Texts that differ in nothing else are one label, and `merged` tells so. They look alike on every screen, and nobody
  means two classes by them: typing makes `cat `, and a copy from macOS may make NFD. An error would only make the user
  merge by hand what keeps its own keys anyway.
  """
  return _SPACES.sub(" ", unicodedata.normalize("NFC", text)).strip()


def is_label(text: str) -> bool:
  """Returns whether a normalised text can be a label."""
  return text.strip(_JOINERS) != "" and re.sub(f"[{_JOINERS}]", "", text).isprintable()


def merged(texts: Iterable[str]) -> list[str]:
  """Returns a sentence for each label that several texts stand for."""
  texts_of = defaultdict(set)
  for text in texts:
    texts_of[normalise(text)].add(text)
  return [
    f"{' and '.join(map(ascii, sorted(same)))} are one label, {label!r}: they differ only in white space or in how"
    " Unicode spells their letters"
    for label, same in sorted(texts_of.items())
    if len(same) > 1
  ]
