"""Writes the page of the documentation: the table, for readers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tools.zoo.table import REFUSES, SAME, SHOWS, VARIANTS, Variant

PAGE = Path(__file__).parents[2] / "docs" / "images.md"
_ABOUT = Path(__file__).with_name("about.md")


def page() -> str:
  """Returns the page, in Markdown."""
  return "\n".join([_ABOUT.read_text(), *_table()]) + "\n"


def _table() -> Iterator[str]:
  count = sum(variant.reason is None for variant in VARIANTS)
  yield f"## The table: {len(VARIANTS)} variants, of which {count} are used and {len(VARIANTS) - count} are refused"
  for format in dict.fromkeys(variant.format for variant in VARIANTS):
    yield from (
      "",
      f"### {format}",
      "",
      "| variant | beam-retrain | Pillow | the exported model alone |",
      "|---|---|---|---|",
    )
    for variant in VARIANTS:
      if variant.format == format:
        yield _row(variant)


def _row(variant: Variant) -> str:
  if variant.reason is not None:
    return f"| {variant.what} | `{variant.reason}` | {_other(variant.pillow)} | {_other(variant.alone)} |"
  within = f", within {variant.bound}" if variant.bound else ""
  pillow = {SAME: f"the same{within}", SHOWS: "another image"}.get(variant.pillow, variant.pillow)
  return f"| {variant.what} | used | {pillow} | {variant.alone} |"


def _other(what: str) -> str:
  """Says what a decoder makes of an image that beam-retrain refuses."""
  return {SAME: "shows it", SHOWS: "shows it", REFUSES: "refuses it"}.get(what, what)
