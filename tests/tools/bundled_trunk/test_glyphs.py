"""What the bundled trunk learns from: pinned fonts, framed glyphs, pen strokes. Offline, with no font but Pillow's."""

import json
import os
import re
import stat

import numpy as np
import pytest
from PIL import ImageFont

from tools.bundled_trunk import fonts, glyphs, pens

PITCH_PX = glyphs.FRAME_PX / glyphs.GRID


@pytest.fixture(scope="module")
def font_bank():
  return glyphs.Bank.of(glyphs.draw_font(ImageFont.load_default(100)))


@pytest.fixture(scope="module")
def pen_bank():
  return pens.draw_digits(200, seed=3)


def framing(field):
  """(longer side, offset of the centre of mass) of the ink of a uint8 field, in pixels."""
  rows, columns = np.nonzero(field > 128)
  side = max(np.ptp(rows), np.ptp(columns)) + 1
  offset = np.hypot(rows.mean() - (glyphs.GRID - 1) / 2, columns.mean() - (glyphs.GRID - 1) / 2)
  return side * PITCH_PX, offset * PITCH_PX


# Fonts


def test_every_font_is_pinned_once_and_held_out_ones_never_move():
  names = [entry.partition("@")[0] for entry in (fonts.HANDWRITING + fonts.PRINT).split()]
  assert len(names) == len(set(names)) == len(fonts.packages()) > 180
  assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in fonts.packages().values())
  held_out = {name for name in names if fonts._is_held_out(name)}
  assert {"lora", "gochi-hand", "satisfy"} <= held_out
  assert "caveat" not in held_out
  assert 0.05 < len(held_out) / len(names) < 0.15


def install(folder, name, version, faces=("400-normal",)):
  package = folder / "node_modules" / name
  (package / "files").mkdir(parents=True)
  (package / "package.json").write_text(json.dumps({"version": version}))
  for face in faces:
    (package / "files" / f"{name.partition('/')[2]}-latin-{face}.woff").write_bytes(b"")


def fake_npm(folder, monkeypatch, status):
  """An npm that notes what it is asked, in the folder in which it is asked."""
  script = folder / "npm"
  script.write_text(f'#!/bin/sh\necho "$@" >> asked\nexit {status}\n')
  script.chmod(script.stat().st_mode | stat.S_IXUSR)
  monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")


def test_fonts_are_fetched_by_exact_version_and_not_twice(tmp_path, monkeypatch):
  fake_npm(tmp_path, monkeypatch, status=0)
  cache = tmp_path / "cache"
  fonts.fetch_fonts(cache)
  assert json.loads((cache / "package.json").read_text())["dependencies"] == fonts.packages()
  assert "--ignore-scripts" in (cache / "asked").read_text()
  for name, version in fonts.packages().items():
    install(cache, name, version)
  (cache / "asked").unlink()
  fonts.fetch_fonts(cache)
  assert not (cache / "asked").exists()


def test_a_failed_fetch_and_a_missing_npm_say_what_to_do(tmp_path, monkeypatch):
  fake_npm(tmp_path, monkeypatch, status=1)
  with pytest.raises(RuntimeError, match="run the command again"):
    fonts.fetch_fonts(tmp_path / "cache")
  monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
  with pytest.raises(RuntimeError, match="npm fetches the fonts and is not installed"):
    fonts.fetch_fonts(tmp_path / "cache")


def test_faces_are_found_and_a_package_without_one_is_named(tmp_path):
  for name, version in fonts.packages().items():
    install(tmp_path, name, version, ("400-normal", "700-normal", "900-normal"))
  found = fonts.find_fonts(tmp_path)
  assert len(found) == 2 * len(fonts.packages())
  kinds = {font.package: font.is_handwriting for font in found}
  assert kinds["caveat"]
  assert not kinds["lora"]
  for path in (tmp_path / "node_modules/@fontsource/caveat/files").iterdir():
    path.unlink()
  with pytest.raises(FileNotFoundError, match="@fontsource/caveat"):
    fonts.find_fonts(tmp_path)


# Glyphs


def test_alike_letters_share_a_class_and_digits_come_first():
  assert len(glyphs.CLASSES) == len(set(glyphs.CLASSES)) == 47
  assert [glyphs.class_index(c) for c in "0123456789"] == list(range(10))
  assert glyphs.class_index("s") == glyphs.class_index("S") != glyphs.class_index("5")
  assert glyphs.class_index("a") != glyphs.class_index("A")


def test_a_distance_field_measures_in_pixels():
  ink = np.zeros((112, 112), bool)
  ink[16:96, 48:64] = True  # 4 px wide, 20 px high, the left edge 12 px from the frame's
  distances, half_width = glyphs.distance_field(ink)
  assert half_width == pytest.approx(2.0, rel=0.15)  # 1.7 by area and outline: the ends count too
  x = (np.arange(glyphs.GRID) + 0.5) * PITCH_PX
  expected = 2 - np.abs(x - 14)
  np.testing.assert_allclose(distances[glyphs.GRID // 2], expected, atol=0.2)
  assert glyphs.encode(np.array([0.0, 1.0, -99.0])).tolist() == [128, 140, 0]


def test_a_font_is_framed_as_mnist_was(font_bank):
  assert set(font_bank.labels) == set(range(47))
  assert font_bank.fields.shape[1:] == (40, 40)
  assert font_bank.fields.dtype == np.uint8
  for field in font_bank.fields:
    side, offset = framing(field)
    assert 18.5 < side < 21.5
    assert offset < 1.0  # a thin stem on a coarse grid


class _SmallCapitals:
  """Pillow's font, but with capitals for small letters, and without a 7."""

  def __init__(self):
    self.font = ImageFont.load_default(100)

  def _shown(self, text):
    return "\uffff" if text == "7" else text.upper()

  def getbbox(self, text, *args, **options):
    return self.font.getbbox(self._shown(text), *args, **options)

  def getmask(self, text, *args, **options):
    return self.font.getmask(self._shown(text), *args, **options)

  def getmask2(self, text, *args, **options):
    return self.font.getmask2(self._shown(text), *args, **options)


def test_missing_glyphs_and_small_capitals_are_left_out():
  labels = {label for _, _, label in glyphs.draw_font(_SmallCapitals())}
  assert glyphs.class_index("7") not in labels
  assert glyphs.class_index("a") not in labels
  assert glyphs.class_index("A") in labels


def test_a_bank_survives_its_file_and_a_damaged_one_is_named(pen_bank, tmp_path):
  pen_bank.save(tmp_path / "bank.npz")
  loaded = glyphs.Bank.load(tmp_path / "bank.npz")
  np.testing.assert_array_equal(loaded.fields, pen_bank.fields)
  np.testing.assert_array_equal(loaded.labels, pen_bank.labels)
  assert [path.name for path in tmp_path.iterdir()] == ["bank.npz"]
  (tmp_path / "bank.npz").write_bytes(b"PK")
  with pytest.raises(ValueError, match=r"bank\.npz is no bank of glyphs.*delete it"):
    glyphs.Bank.load(tmp_path / "bank.npz")


# Pens


def test_every_digit_is_written_in_several_ways():
  assert sorted(pens.TEMPLATES) == list(range(10))
  for templates in pens.TEMPLATES.values():
    assert len(set(templates)) == len(templates) >= 6
    for template in templates:
      for points, corners in pens.parse(template):
        assert len(points) == len(corners) >= 2
        assert points.min() >= 0
        assert points.max() <= 1


def test_the_pen_passes_through_its_points_and_turns_sharply_at_corners():
  points, corners = pens.parse("0 0, 100 0!, 0 100")[0]
  sharp, smooth = pens._smooth(points, corners), pens._smooth(points, np.zeros(3, bool))
  for path in (sharp, smooth):
    assert all(np.linalg.norm(path - point, axis=1).min() < 1e-6 for point in points)
  assert smooth.min() < -0.02 < -1e-6 < sharp.min()  # only the smooth one swings out to take the turn


def test_pen_digits_are_framed_balanced_repeatable_and_all_different(pen_bank):
  assert np.bincount(pen_bank.labels).tolist() == [20] * 10
  assert len({field.tobytes() for field in pen_bank.fields}) == 200
  sides, offsets = zip(*(framing(field) for field in pen_bank.fields), strict=True)
  assert min(sides) > 16.5
  assert max(sides) < 22
  assert np.mean(offsets) < 0.9
  again, other = pens.draw_digits(200, seed=3), pens.draw_digits(200, seed=4)
  np.testing.assert_array_equal(again.fields, pen_bank.fields)
  assert (other.fields != pen_bank.fields).any(axis=(1, 2)).all()
