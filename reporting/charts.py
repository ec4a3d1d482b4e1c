"""The report's charts: SVG in the page's colours, drawn by matplotlib.

matplotlib is imported with the first chart. Labels are never drawn, because their text is untrusted: the page shows
them beside the charts.
"""

from __future__ import annotations

import datetime
import io
import logging
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from beam_retrain.transforms.core.metrics.figures import MISSED, PASSED, CalibrationBin, TrendPoint
from beam_retrain.transforms.core.system import scratch

if TYPE_CHECKING:
  import numpy as np
  from markupsafe import Markup
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

  from beam_retrain.transforms.core.metrics.training_log import TrainingLog

# Placeholders, replaced by the page's CSS colours so that charts follow its dark mode.
_INK, _MUTED, _GRID, _ACCENT, _BAD, _PAPER = "#010101", "#010102", "#010103", "#010104", "#010105", "#010106"
_OF_PAGE = {
  _INK: "currentColor",
  _MUTED: "var(--muted)",
  _GRID: "var(--line)",
  _ACCENT: "var(--accent)",
  _BAD: "var(--bad)",
  _PAPER: "var(--paper)",
}
_MAX_EPOCHS = 400  # with more, some are left out
_MAX_MARKERS = 60  # with more nights, only the line is drawn
_MARKERS = {PASSED: ("o", _ACCENT), MISSED: ("X", _BAD)}
_PLAIN_MARKER = ("o", _PAPER)


def reliability(bins: Sequence[CalibrationBin], name: str, description: str) -> Markup:
  """Draws accuracy against confidence, with 95 % intervals and image counts."""
  seen = [row for row in bins if row.images]
  confidence = _percents([row.mean_confidence for row in seen])
  accuracy = _percents([row.accuracy for row in seen])
  bounds = _percents([row.interval or (row.accuracy, row.accuracy) for row in seen])
  with _figure(380, 300) as figure:
    axes = figure.add_axes((0.13, 0.30, 0.84, 0.66))
    axes.plot([0, 100], [0, 100], color=_MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.vlines(confidence, *bounds.T, color=_ACCENT)
    axes.plot(confidence, accuracy, color=_ACCENT, linewidth=1, alpha=0.5)
    axes.plot(confidence, accuracy, color=_ACCENT, linestyle="none", marker="o", markersize=5, clip_on=False)
    _style(axes, y_ticks=[0, 25, 50, 75, 100])
    axes.set_xlim(0, 102)
    axes.set_ylim(0, 104)
    axes.set_xticks([0, 25, 50, 75, 100], labels=[])
    axes.set_ylabel("right, %", color=_INK, fontsize=10)
    numbers = figure.add_axes((0.13, 0.14, 0.84, 0.12))
    width = [100 * (row.high - row.low) * 0.86 for row in bins]
    centre = [50 * (row.high + row.low) for row in bins]
    numbers.bar(centre, [row.images for row in bins], width=width, color=_ACCENT, alpha=0.55)
    _style(numbers, y_ticks=[])
    numbers.set_xlim(0, 102)
    numbers.set_xticks([0, 25, 50, 75, 100])
    numbers.set_xlabel("confidence, % (bars: how many images)", color=_INK, fontsize=10)
    return _svg(figure, name, description)


def trend(nights: Sequence[TrendPoint], threshold: float | None, name: str, description: str) -> Markup:
  """Draws the nights' accuracy, its 95 % interval, and the threshold."""
  at = _places([night.night for night in nights])
  accuracy = _percents([night.accuracy for night in nights])
  bounds = _percents([(None, None) if night.accuracy is None else night.accuracy_interval for night in nights])
  with _figure(480, 210) as figure:
    axes = figure.add_axes((0.105, 0.15, 0.875, 0.80))
    axes.fill_between(at, *bounds.T, color=_ACCENT, alpha=0.18, linewidth=0)
    axes.plot(at, accuracy, color=_ACCENT, linewidth=1.5)
    if len(nights) <= _MAX_MARKERS:
      _mark(axes, at, accuracy, [night.verdict for night in nights])
    shown = [value for value in bounds.flat if not math.isnan(value)]
    if threshold is not None:
      axes.axhline(100 * threshold, color=_BAD, linewidth=1, linestyle=(0, (5, 3)))
      shown.append(100 * threshold)
    _style(axes)
    _fit(axes, shown)
    _night_ticks(axes, at, [night.night for night in nights])
    return _svg(figure, name, description)


def training(log: TrainingLog, kind: str, name: str, description: str) -> Markup:
  """Draws `loss` or `accuracy` over the epochs; the best epoch is marked."""
  chosen = log.rounds[:: -(-len(log.rounds) // _MAX_EPOCHS)]
  at = [one.number for one in chosen]
  with _figure(380, 220) as figure:
    axes = figure.add_axes((0.14, 0.2, 0.83, 0.75))
    for split, style in (("training", (0, (4, 2))), ("validation", "-")):
      values = [getattr(one, f"{split}_{kind}") * (100 if kind == "accuracy" else 1) for one in chosen]
      axes.plot(
        at, values, color=_MUTED if split == "training" else _ACCENT, linestyle=style, linewidth=1.6, label=split
      )
    axes.axvline(log.best_round, color=_BAD, linewidth=1, linestyle=(0, (1, 2)))
    _style(axes)
    axes.locator_params(nbins=5)
    axes.set_xlabel("epoch", color=_INK, fontsize=10)
    axes.legend(frameon=False, fontsize=10, labelcolor=_INK)
    return _svg(figure, name, description)


def small_trend(
  nights: Sequence[str], rates: Sequence[float | None], limits: tuple[float, float], name: str, description: str
) -> Markup:
  """Draws one label's recall per night between `limits`, without axes."""
  at, values = _places(nights), _percents(rates)
  with _figure(170, 52) as figure:
    axes = figure.add_axes((0.01, 0.06, 0.98, 0.88))
    axes.axhline(100 * limits[1], color=_GRID, linewidth=1)
    axes.axhline(100 * limits[0], color=_GRID, linewidth=1)
    axes.plot(at, values, color=_ACCENT, linewidth=1.4)
    axes.plot(at[-1:], values[-1:], color=_ACCENT, marker="o", markersize=4)
    reach = 0.08 * (limits[1] - limits[0]) * 100
    axes.set_ylim(100 * limits[0] - reach, 100 * limits[1] + reach)
    room = max(at[-1] - at[0], 1) * 0.03
    axes.set_xlim(at[0] - room, at[-1] + room)
    axes.set_axis_off()
    return _svg(figure, name, description)


def recall_limits(recalls: Iterable[Sequence[float | None]]) -> tuple[float, float]:
  """Returns the rates between which `small_trend` draws all labels."""
  lowest = min((rate for rates in recalls for rate in rates if rate is not None), default=0.99)
  return int(100 * lowest - 1e-9) / 100, 1.0


def _percents(rates: Sequence[float | None] | Sequence[tuple[float | None, float | None]]) -> np.ndarray:
  """Returns percent, NaN where unknown."""
  import numpy as np

  return 100 * np.array(rates, np.float64)


def _places(nights: Sequence[str]) -> list[int]:
  """Returns x positions: by date, or in a row without dates."""
  try:
    return [datetime.date.fromisoformat(night).toordinal() for night in nights]
  except ValueError:
    return list(range(len(nights)))


def _mark(axes: Axes, at: Sequence[int], accuracy: np.ndarray, verdicts: Sequence[str]) -> None:
  """Marks verdicts by shape, not by colour alone."""
  for kind in dict.fromkeys(verdicts):
    marker, face = _MARKERS.get(kind, _PLAIN_MARKER)
    chosen = [place for place, verdict in enumerate(verdicts) if verdict == kind]
    axes.plot(
      [at[place] for place in chosen],
      accuracy[chosen],
      linestyle="none",
      marker=marker,
      markersize=7 if kind == MISSED else 5,
      markerfacecolor=face,
      markeredgecolor=_BAD if kind == MISSED else _ACCENT,
    )


def _fit(axes: Axes, shown: Sequence[float]) -> None:
  low, high = (min(shown), max(shown)) if shown else (0.0, 100.0)
  room = max(0.08 * (high - low), 0.25)
  axes.set_ylim(low - room, high + room)
  axes.locator_params(axis="y", nbins=5)


def _night_ticks(axes: Axes, at: Sequence[int], names: Sequence[str]) -> None:
  wanted = sorted({round(part * (len(at) - 1) / 3) for part in range(4)}) if len(at) > 3 else [0, len(at) - 1]
  room = max(at[-1] - at[0], 1)
  kept = [0]
  for place in wanted[1:]:
    if (at[place] - at[kept[-1]]) / room > 0.22 and (place == len(at) - 1 or (at[-1] - at[place]) / room > 0.22):
      kept.append(place)
  axes.set_xlim(at[0] - 0.03 * room, at[-1] + 0.03 * room)
  axes.set_xticks([at[place] for place in kept], labels=[names[place] for place in kept])
  for place, label in zip(kept, axes.get_xticklabels(), strict=True):
    label.set_horizontalalignment("left" if place == 0 else "right" if place == len(at) - 1 else "center")
    label.set_parse_math(False)


def _style(axes: Axes, y_ticks: Sequence[float] | None = None) -> None:
  axes.set_facecolor("none")
  for side, spine in axes.spines.items():
    spine.set_visible(side == "bottom")
    spine.set_color(_MUTED)
  axes.tick_params(colors=_INK, length=0, labelsize=10)
  axes.grid(axis="y", color=_GRID, linewidth=0.8)
  axes.set_axisbelow(True)
  if y_ticks is not None:
    axes.set_yticks(list(y_ticks))


@contextmanager
def _figure(width_px: int, height_px: int) -> Iterator[Figure]:
  """Yields a figure with matplotlib's defaults, ignoring the user's settings."""
  # Without a home to write to it makes a folder that it deletes when the process ends, and warns at length.
  logging.getLogger("matplotlib").setLevel(logging.ERROR)
  with scratch.outside():
    import matplotlib
    from matplotlib.figure import Figure

  with matplotlib.rc_context():
    matplotlib.rcdefaults()
    matplotlib.rcParams.update({"svg.fonttype": "none", "path.simplify": False, "axes.formatter.useoffset": False})
    figure = Figure(figsize=(width_px / 72, height_px / 72))
    figure.patch.set_visible(False)
    yield figure


def _svg(figure: Figure, name: str, description: str) -> Markup:
  import matplotlib
  from markupsafe import Markup, escape
  from matplotlib.backends.backend_svg import FigureCanvasSVG

  written = io.StringIO()
  with matplotlib.rc_context({"svg.hashsalt": name}):
    FigureCanvasSVG(figure).print_svg(written, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
  _, _, after = written.getvalue().partition("<svg")
  opening, _, drawing = after.partition(">")
  box = re.search(r'viewBox="[^"]*"', opening)
  assert box is not None, "matplotlib's SVG has a viewBox"
  drawing = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", drawing, count=1, flags=re.DOTALL)
  drawing = re.sub(r' id="[\w.]+_\d+"', "", drawing)  # group names, which are the same in every chart
  for stand_in, colour in _OF_PAGE.items():
    drawing = drawing.replace(stand_in, colour)
  return Markup(f'<svg class="chart" role="img" aria-label="{escape(description)}" {box.group()}>{drawing}')
