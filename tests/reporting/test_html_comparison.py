"""The report's comparison with another night, its trend and its slices."""

from __future__ import annotations

from typing import Any

import pytest

from beam_retrain.reporting.wording import how_often
from tests.html_elements import Element, read
from tests.report_sample import Sample, evaluation, night
from tests.reporting.report_suite import cells_of, has_section, night_page, night_sample, render, section_of

__all__ = ["night_page", "night_sample"]  # fixtures


def test_the_comparison_in_words_and_numbers(night_sample: Sample, night_page: Element) -> None:
  section = section_of(night_page, "compared")
  for heading, figures in (
    ("Model against 2026-11-23", night_sample.metrics),
    ("Candidate against the model tonight", night_sample.metrics["candidate"]),
  ):
    assert heading in [element.text for element in section.every("h3")]
    comparison = figures["comparison"]
    kinds = [(f"{comparison['regressed']:,} images", "regressed"), (f"{comparison['fixed']:,}", "fixed")]
    edited = {kind: comparison[f"{kind}_edited"] for _, kind in kinds}
    words = [f"{number} {kind}" + f", {edited[kind]} of them edited" * bool(edited[kind]) for number, kind in kinds]
    assert f"{', '.join(words)}." in section.text
    assert bool(sum(edited.values())) == (figures is night_sample.metrics)
  assert "The candidate is worse than the model tonight" in night_page.only("header").text
  of_model = section.every("dl", class_="facts")[0]
  facts = {name.text: value.text for name, value in zip(of_model.every("dt"), of_model.every("dd"), strict=True)}
  comparison = night_sample.metrics["comparison"]
  assert facts["images in both"] == f"{comparison['paired']:,}"
  assert facts["new, only now"] == facts["gone, only before"] == "100"
  assert facts["edited, same name"] == str(comparison["edited"])


def test_the_comparison_says_of_which_images_chance_was_asked() -> None:
  sample = night(number=600)
  comparison = sample.metrics["comparison"]
  comparison |= {"unseen_paired": 200, "unseen_regressed": 2, "unseen_fixed": 1, "verdict": "worse", "p_value": 0.04}
  section = section_of(read(render(sample)), "compared")
  assert "on the 200 images of both not trained on: 2 images regressed, 1 fixed. On all 500: " in section.text
  facts = section.every("dl", class_="facts")[0].text
  assert (
    f" regressed {comparison['regressed']} (2 not trained on) fixed {comparison['fixed']} (1 not trained on) " in facts
  )
  assert "change in accuracy, on images not trained on " in facts
  assert "exact p, on images not trained on 0.04 " in facts


def test_regressed_and_fixed_stand_side_by_side(night_sample: Sample, night_page: Element) -> None:
  sides = section_of(night_page, "compared").every("div", class_="sides")
  for model, pair in zip(("model", "candidate"), sides, strict=True):
    for kind, side in zip(("regressed", "fixed"), pair.every("div", class_="side"), strict=True):
      keys = [picture["key"] for picture in night_sample.images[kind] if picture["model"] == model]
      assert [file.text for file in side.every("span", class_="file")] == keys
      assert keys
  first = next(picture for picture in night_sample.images["regressed"] if picture["model"] == "model")
  says = sides[0].every("figcaption")[0].text
  assert says.startswith(f"{first['actual']}: was {first['baseline_predicted']} {first['baseline_confidence']:.1f} %")
  assert f"now {first['predicted']} {first['confidence']:.1f} %" in says


def test_an_edited_image_says_so(night_sample: Sample, night_page: Element) -> None:
  edited = {}
  for kind in ("regressed", "fixed"):
    for picture in night_sample.images[kind]:
      edited[picture["model"], kind, picture["key"]] = picture["edited"]
  assert set(edited.values()) == {True, False}
  sides = section_of(night_page, "compared").every("div", class_="sides")
  shown = {
    (model, kind, figure.only("span", class_="file").text): [one.text for one in figure.every("span", class_="edited")]
    for model, pair in zip(("model", "candidate"), sides, strict=True)
    for kind, side in zip(("regressed", "fixed"), pair.every("div", class_="side"), strict=True)
    for figure in side.every("figure")
  }
  assert shown == {place: ["edited"] * was for place, was in edited.items()}


def test_a_baseline_may_be_called_model() -> None:
  sample = night(number=600, max_drop=0.5)
  sample.metrics["comparison"]["baseline"] = "model"
  page = read(render(sample))
  section = section_of(page, "compared")
  assert [heading.text for heading in section.every("h3")] == [
    "Model against model",
    "Candidate against the model tonight",
  ]
  of_model, of_candidate = (facts.text for facts in section.every("dl", class_="facts"))
  assert "right before" in of_model
  assert "gone, only before" in of_model
  assert "right by the candidate" in of_candidate
  assert "gone" not in of_candidate
  measured = [row.every("td")[-1].text for row in section_of(page, "gates").every("tr")[1:]]
  assert measured[1].endswith("that of model")
  assert measured[4].endswith("that of the model")


@pytest.mark.parametrize(
  ("p_value", "often"),
  [
    (1.0, "nearly every comparison"),
    (0.607, "about 61 of 100 comparisons"),
    (0.0501, "about 1 of 20 comparisons"),
    (0.0007, "about 1 of 1,400 comparisons"),
    (1e-6, "about 1 of 1,000,000 comparisons"),
    (3e-29, "less than 1 of a million comparisons"),
  ],
)
def test_a_p_value_in_words(p_value: float, often: str) -> None:
  assert how_often(p_value).endswith(f"unevenly in {often}.")


@pytest.mark.parametrize(
  ("comparison", "says"),
  [
    ({"baseline": None, "verdict": "no baseline"}, "There is no baseline: nothing was compared"),
    ({"baseline": "2026-11-23", "paired": 0, "verdict": "no difference shown"}, "have no image in common"),
    (
      {"baseline": "2026-11-23", "paired": 9, "verdict": "no difference shown"},
      "No change: the model is right",
    ),
  ],
)
def test_comparisons_with_nothing_to_compare(comparison: dict[str, Any], says: str) -> None:
  sample = evaluation(number=100)
  unknown = dict.fromkeys(("paired", "baseline_correct", "correct", "regressed", "fixed", "drop", "p_value"))
  known = dict.fromkeys(("baseline_correct", "correct", "regressed", "fixed", "drop"), 0) | {"p_value": 1.0}
  sample.metrics["comparison"] = {**(known if comparison["baseline"] else unknown), **comparison}
  page = read(render(sample))
  assert says in section_of(page, "compared").text
  assert says in page.only("header").text


def test_the_first_night_has_no_trend_yet() -> None:
  sample = evaluation(number=50)
  sample.metrics["night"] = "2026-11-24"
  page = read(render(sample))
  assert not has_section(page, "trend")
  assert "Trend: this is the first night; it begins with the second." in section_of(page, "made").text


def test_the_trend_shows_the_labels_that_are_worst() -> None:
  labels = [f"label {number}" for number in range(30)]
  sample = night(labels, number=1_500)
  tonight = sample.trend[-1]["per_label"]
  shown = [small.only("b").text for small in section_of(read(render(sample)), "trend").every("div", class_="small")]
  assert shown == sorted(labels, key=lambda label: tonight[label])[:12]


def test_slices(night_sample: Sample, night_page: Element) -> None:
  section = section_of(night_page, "slices")
  assert [heading.text for heading in section.every("h3")] == [
    "device Model",
    "writer Model",
    "device Candidate",
    "writer Candidate",
  ]
  for table, column in zip(section.every("table")[:2], ("device", "writer"), strict=True):
    found = night_sample.metrics["slices"][column]
    worst_first = sorted(found, key=lambda value: (found[value]["accuracy"], value))[:50]
    shown = [row.only("th").text for row in table.only("tbody").every("tr")]
    assert shown == worst_first
    beside = night_sample.metrics["slices_beside"][column]
    rows = [[cell.text for cell in cells_of(row)] for row in table.only("tfoot").every("tr")]
    expected = [("not in the manifest", beside["unlisted"])]
    if column == "writer":
      slices = beside["small"]["slices"]
      expected.insert(0, (f"{slices} slice{'s' * (slices > 1)} of fewer than 30 images", beside["small"]))
    assert [row[:3] for row in rows] == [[words, str(row["pictures"]), str(row["correct"])] for words, row in expected]
    for cells, (_, row) in zip(rows, expected, strict=True):
      low, high = row["interval_95"]
      places = 0 if high - low > 0.05 else 1
      assert cells[3].split(" %", 1)[1] == f" {100 * low:.{places}f} to {100 * high:.{places}f} %"
      assert float(cells[3].split()[0]) == pytest.approx(100 * row["accuracy"], abs=0.51)


def test_a_value_of_the_manifest_may_be_any_text() -> None:
  sample = evaluation(number=100)
  row = {"pictures": 50, "correct": 40, "accuracy": 0.8, "interval_95": [0.7, 0.9]}
  sample.metrics["slices"] = {"w": {"not in the manifest": row}}
  table = section_of(read(render(sample)), "slices").only("table")
  assert table.only("tbody").only("th").text == "not in the manifest"
  assert not table.every("tfoot")
