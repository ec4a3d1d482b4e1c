"""The report's HTML, read with a parser. What a browser makes of it is in test_report_chromium.py."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from beam_retrain.reporting.charts import LEVELS, heat_colours, heat_level, luminance
from beam_retrain.reporting.html_report import render_report
from beam_retrain.reporting.html_tables import Labels
from beam_retrain.reporting.wording import how_often
from beam_retrain.transforms.core.metrics.label_stats import evaluate_in_memory, metrics_json
from tests.html_elements import Element, read
from tests.report_sample import HOSTILE, Sample, evaluation, night, outcomes


def render(sample: Sample) -> str:
  return render_report(**{field.name: getattr(sample, field.name) for field in dataclasses.fields(sample)})


@pytest.fixture(scope="module")
def night_sample() -> Sample:
  return night(min_accuracy=0.965, max_drop=0.02, min_label_recall=0.93)


@pytest.fixture(scope="module")
def night_page(night_sample: Sample) -> Element:
  return read(render(night_sample))


def _section(page: Element, name: str) -> Element:
  return page.only("section", aria_labelledby=name)


def _has_section(page: Element, name: str) -> bool:
  return bool(page.every("section", aria_labelledby=name))


@pytest.mark.parametrize(
  ("gates", "word", "why"),
  [
    ({}, "No gate set", "nothing was asked of the model"),
    ({"min_accuracy": 0.9}, "Passed", "every gate that was set holds"),
    ({"min_accuracy": 0.99}, "Missed", "% is below 99 %"),
    ({"min_label_recall": 0.999}, "Missed", "recall of 6 labels is below 99.9 %"),
  ],
)
def test_the_first_line_is_the_verdict(gates: dict[str, float], word: str, why: str) -> None:
  page = read(render(evaluation(number=500, **gates)))
  first = page.only("header").only("h1")
  assert page.only("header").children[1] is first
  assert word in first.text
  assert why in first.text
  assert page.only("title").text == f"{word}: MNIST, 10,000 test images"


def test_accuracy_with_its_interval(night_sample: Sample, night_page: Element) -> None:
  metrics = night_sample.metrics
  model, candidate = night_page.only("header").every("div", class_="model")
  low, high = metrics["accuracy_interval_95"]
  assert model.only("strong").text == f"{100 * metrics['accuracy']:.2f} %"
  assert (
    f"{metrics['correct']:,} of 3,000 images right; 95 % interval {100 * low:.1f} to {100 * high:.1f} %" in model.text
  )
  assert candidate.only("strong").text == f"{100 * metrics['candidate']['accuracy']:.2f} %"


def test_each_gate_of_each_model_has_one_of_three_states(night_page: Element) -> None:
  rows = [[cell.text for cell in _cells(row)] for row in _section(night_page, "gates").every("tr")[1:]]
  assert [row[:3] for row in rows] == [
    ["Model", "accuracy", "✓ passed"],
    ["Model", "drop in accuracy", "✓ passed"],
    ["Model", "recall of every label", "✓ passed"],
    ["Candidate", "accuracy", "✗ missed"],
    ["Candidate", "drop in accuracy", "✗ missed"],
    ["Candidate", "recall of every label", "✗ missed"],
  ]
  assert rows[0][3] == "at least 96.5 %"
  page = read(render(evaluation(number=300, min_accuracy=0.5)))
  assert [row.every("td")[0].text for row in _section(page, "gates").every("tr")[1:]] == ["✓ passed", "○ none set"]


def _cells(row: Element) -> list[Element]:
  return [child for child in row.children if isinstance(child, Element) and child.tag in ("td", "th")]


def test_nothing_outside_is_asked_for_and_nothing_runs(night_page: Element) -> None:
  policy = night_page.only("meta", http_equiv="Content-Security-Policy").attributes["content"]
  assert policy.startswith("default-src 'none';")
  assert "http" not in policy
  for element in night_page.below():
    assert element.tag not in ("script", "iframe", "object", "embed", "form", "base", "audio", "video")
    for name, value in element.attributes.items():
      assert not name.startswith("on"), element
      if name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
        assert value.startswith(("#", "data:")), element
      if name == "style":
        assert not re.search(r"url\((?!#)", value), element
  assert "url(" not in night_page.only("style").text
  assert "@import" not in night_page.only("style").text


def test_each_mistake_of_the_matrix_leads_to_its_images(night_sample: Sample, night_page: Element) -> None:
  for prefix, figures in (("m", night_sample.metrics), ("c", night_sample.metrics["candidate"])):
    table = figures["confusion_matrix"]
    section = _section(night_page, f"{prefix}-matrix")
    rows = section.only("table").every("tr")[1:]
    led = {}
    for i, row in enumerate(rows):
      cells = row.every("td")
      assert [cell.text for cell in cells[:-1]] == [str(number) if number else "" for number in table[i]]
      for j, cell in enumerate(cells[:-1]):
        for link in cell.every("a"):
          led[i, j] = link.attributes["href"]
          assert link.attributes["aria-label"].startswith(f"{i} taken for {j}: {table[i][j]} image")
    assert led == {(i, j): f"#{prefix}-{i}-{j}" for i in range(10) for j in range(10) if i != j and table[i][j]}
    model = {"m": "model", "c": "candidate"}[prefix]
    for (i, j), target in led.items():
      group = _section(night_page, f"{prefix}-mistakes").only("div", id=target[1:])
      keys = {
        picture["key"]
        for picture in night_sample.images["mistakes"]
        if (picture["model"], picture["actual"], picture["predicted"]) == (model, str(i), str(j))
      }
      assert {file.text for file in group.every("span", class_="file")} == keys
      assert group.only("h4").text.startswith(f"taken for {j} {table[i][j]} image")


def test_a_mistake_with_no_image_to_show_leads_to_its_name() -> None:
  sample = evaluation(number=300)
  del sample.images["mistakes"][1:]
  page = read(render(sample))
  links = _section(page, "m-matrix").only("table").every("a")
  bare = ["none shown" in page.only("div", id=link.attributes["href"][1:]).text for link in links]
  assert len(links) > 2
  assert bare.count(False) == 1


@pytest.mark.parametrize("model", ["model", "candidate"])
def test_a_model_none_of_whose_images_are_here_has_no_gallery(model: str) -> None:
  sample = night(number=600)
  for kind in ("mistakes", "suspicious"):
    sample.images[kind] = [picture for picture in sample.images[kind] if picture["model"] != model]
  figures = sample.metrics if model == "model" else sample.metrics["candidate"]
  figures["suspicious_labels"]["pictures"] = 3
  page = read(render(sample))
  test_every_link_leads_somewhere_and_no_id_is_given_twice(page)
  prefix, other = ("m", "c") if model == "model" else ("c", "m")
  matrix = _section(page, f"{prefix}-matrix")
  assert not matrix.every("a")
  rows = [[cell.text for cell in row.every("td")[:-1]] for row in matrix.only("tbody").every("tr")]
  assert rows == [[str(number) if number else "" for number in row] for row in figures["confusion_matrix"]]
  assert any(cell.attributes["class"] not in ("h0", "right", "sum") for cell in matrix.every("td"))
  folder = "" if model == "model" else "candidate/"
  assert f"images went wrong, all in {folder}predictions.csv." in matrix.text
  assert not _has_section(page, f"{prefix}-mistakes")
  assert not _has_section(page, f"{prefix}-suspicious")
  assert _section(page, f"{other}-mistakes").every("figure")
  assert bool(_section(page, "labels").every("a")) == (model == "candidate")


def test_a_model_without_mistakes_says_so() -> None:
  page = read(render(evaluation(number=100, wrong=0.0)))
  assert _section(page, "m-mistakes").only("p").text == "There are no mistakes."
  assert "No label is contradicted" in _section(page, "m-suspicious").text


def test_every_link_leads_somewhere_and_no_id_is_given_twice(night_page: Element) -> None:
  ids = [element.attributes["id"] for element in night_page.below() if "id" in element.attributes]
  assert len(ids) == len(set(ids))
  targets = [
    element.attributes[name][1:]
    for element in night_page.below()
    for name in ("href", "xlink:href")
    if element.attributes.get(name, "").startswith("#")
  ]
  assert len(targets) > 20
  assert set(targets) <= set(ids)


def test_a_image_of_the_gallery_says_everything(night_sample: Sample, night_page: Element) -> None:
  picture = next(picture for picture in night_sample.images["mistakes"] if picture["thumbnail"])
  (figure,) = [
    figure
    for figure in _section(night_page, "m-mistakes").every("figure")
    if figure.only("span", class_="file").text == picture["key"]
  ]
  assert figure.only("img").attributes["src"] == picture["thumbnail"]
  assert figure.only("img").attributes["alt"] == picture["key"]
  says = f"{picture['actual']} → {picture['predicted']} {picture['confidence']:.1f} %"
  assert figure.only("figcaption").text == f"{says} {picture['key']}"


def test_the_surest_mistakes_come_first(night_page: Element) -> None:
  for group in _section(night_page, "c-mistakes").every("div", class_="pictures"):
    confidences = [float(figure.every("small")[0].text.split()[0]) for figure in group.every("figure")]
    assert confidences == sorted(confidences, reverse=True)


def test_hostile_names_are_only_text() -> None:
  sample = evaluation(HOSTILE, number=400, wrong=0.2)
  for kind in sample.images.values():
    for number, picture in enumerate(kind):
      picture["key"] = f'{HOSTILE[number % len(HOSTILE)]}" onerror="alert(4)" {number}.png'
  sample.quarantined = [(name, name, 1, name, name) for name in HOSTILE]
  sample.title = HOSTILE[0]
  sample.info["command"] = HOSTILE[1]
  sample.metrics["slices"] = {
    HOSTILE[0]: {HOSTILE[1]: {"pictures": 1, "correct": 1, "accuracy": 1.0, "interval_95": [0, 1]}}
  }
  tonight = {name: sample.metrics[name] for name in ("accuracy", "accuracy_interval_95", "total")}
  recalls = {label: row["recall"] for label, row in sample.metrics["per_label"].items()}
  sample.trend = [{**tonight, "night": name, "per_label": recalls} for name in HOSTILE]
  page = read(render(sample))
  test_nothing_outside_is_asked_for_and_nothing_runs(page)
  test_every_link_leads_somewhere_and_no_id_is_given_twice(page)
  assert {element.attributes["src"][:11] for element in page.every("img")} == {"data:image/"}
  assert page.only("p", class_="title").text == HOSTILE[0]
  assert [row.only("th").text for row in _section(page, "labels").only("tbody").every("tr")] == list(HOSTILE)
  for element in page.below():
    assert not any(name in element.attributes.get("id", "") for name in HOSTILE)


def test_a_label_spelled_as_in_a_csv_cell_finds_its_group() -> None:
  labels = ["=cmd", "ant"]
  stats = evaluate_in_memory([("=cmd", "ant"), ("ant", "ant")], labels)
  picture = {"model": "model", "key": "'=cmd/1.png", "actual": "'=cmd", "predicted": "ant", "confidence": 60.0}
  picture |= {"baseline_predicted": None, "baseline_confidence": None, "thumbnail": None}
  page = read(render(Sample(metrics_json(stats), {"mistakes": [picture]})))
  (link,) = _section(page, "m-matrix").only("table").every("a")
  assert page.only("div", id=link.attributes["href"][1:]).only("span", class_="file").text == "'=cmd/1.png"


def test_headings_scopes_and_alternatives(night_page: Element) -> None:
  levels = [int(element.tag[1]) for element in _in_order(night_page) if re.fullmatch("h[1-6]", element.tag)]
  assert levels[0] == 1
  assert levels.count(1) == 1
  assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
  assert night_page.only("html").attributes["lang"] == "en"
  assert all(th.attributes.get("scope") in ("col", "row") for th in night_page.every("th"))
  assert all(image.attributes["alt"] for image in night_page.every("img"))
  for chart in night_page.every("svg"):
    assert chart.attributes["role"] == "img"
    assert len(chart.attributes["aria-label"]) > 20
  for box in night_page.every("div", class_="scroll"):
    assert box.attributes["tabindex"] == "0"
    assert box.attributes["aria-label"]
  assert night_page.only("a", class_="skip").attributes["href"] == "#content"


def _in_order(element: Element) -> list[Element]:
  return [found for child in element.children if isinstance(child, Element) for found in (child, *_in_order(child))]


def test_each_chart_is_a_table_too(night_sample: Sample, night_page: Element) -> None:
  bins = [row for row in night_sample.metrics["calibration"]["bins"] if row["pictures"]]
  rows = _section(night_page, "m-calibration").only("details").only("tbody").every("tr")
  assert [row.every("td")[0].text for row in rows] == [f"{row['pictures']:,}" for row in bins]
  nights, recalls = _section(night_page, "trend").every("details")
  names = [entry["night"] for entry in reversed(night_sample.trend)]
  assert [row.only("th").text for row in nights.only("tbody").every("tr")] == names
  assert [row.only("th").text for row in recalls.only("tbody").every("tr")] == names


def test_the_comparison_in_words_and_numbers(night_sample: Sample, night_page: Element) -> None:
  section = _section(night_page, "compared")
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


def test_regressed_and_fixed_stand_side_by_side(night_sample: Sample, night_page: Element) -> None:
  sides = _section(night_page, "compared").every("div", class_="sides")
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
  sides = _section(night_page, "compared").every("div", class_="sides")
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
  section = _section(page, "compared")
  assert [heading.text for heading in section.every("h3")] == [
    "Model against model",
    "Candidate against the model tonight",
  ]
  of_model, of_candidate = (facts.text for facts in section.every("dl", class_="facts"))
  assert "right before" in of_model
  assert "gone, only before" in of_model
  assert "right by the candidate" in of_candidate
  assert "gone" not in of_candidate
  measured = [row.every("td")[-1].text for row in _section(page, "gates").every("tr")[1:]]
  assert measured[1].endswith("that of model")
  assert measured[4].endswith("that of the model")


@pytest.mark.parametrize(("about", "word"), [({"night": "2026-11-24"}, "Not published"), ({}, "Unfinished")])
def test_more_bad_inputs_than_allowed_are_the_verdict(about: dict[str, str], word: str) -> None:
  sample = evaluation(number=300, min_accuracy=0.5)
  bad = {"quarantined": 3, "inputs": 1_803, "allowed": 0.0, "too_many": True}
  sample.metrics |= {**about, "bad_inputs": bad}
  page = read(render(sample))
  assert page.only("header").only("h1").text == f"✗ {word} 3 of 1,803 inputs are bad; every gate that was set holds"
  assert page.only("title").text.startswith(f"{word}: ")
  bad["too_many"] = False
  assert read(render(sample)).only("header").only("h1").text == "✓ Passed every gate that was set holds"


def test_labels_that_are_not_in_the_list_have_groups_of_their_own() -> None:
  sample = evaluation(number=300)
  strange = [
    {**sample.images["mistakes"][0], "actual": "1", "predicted": name, "key": f"{name}.png"} for name in ("zz", "yy")
  ]
  sample.images["mistakes"] += strange
  section = _section(read(render(sample)), "m-mistakes")
  for place, name in ((10, "yy"), (11, "zz")):
    group = section.only("div", id=f"m-1-{place}")
    assert group.only("h4").text.startswith(f"taken for {name} 1 image")
    assert group.only("span", class_="file").text == f"{name}.png"


def test_asking_for_a_label_changes_nothing() -> None:
  labels = Labels(["a", "=b"])
  with pytest.raises(KeyError):
    labels.place("c")
  assert "c" not in labels
  assert (labels.place("a"), labels.place("=b"), labels.place("'=b")) == (0, 1, 1)


def test_one_is_told_as_one() -> None:
  sample = night(number=600, max_drop=0.01)
  small = {"slices": 1, "fewer_than": 30, "pictures": 1, "correct": 1, "accuracy": 1.0, "interval_95": [0.2, 1.0]}
  row = {**small, "pictures": 40}
  sample.metrics["slices"] = {f"column {number}": {str(value): row for value in range(51)} for number in range(21)}
  sample.metrics["slices_beside"] = {"column 0": {"small": small, "unlisted": None}}
  sample.metrics["quarantined"] = {"total": 1, "reasons": {"EMPTY": 1}}
  sample.quarantined = []
  sample.metrics["suspicious_labels"]["pictures"] = 2
  sample.images["suspicious"] = sample.images["mistakes"][:1]
  page = read(render(sample))
  assert "at most 1 point " in _section(page, "gates").text
  says = _section(page, "slices").text
  for words in ("1 slice of fewer than 30 images", "1 more slice is in", "1 more column is in"):
    assert words in says
  says = _section(page, "quarantine").text
  assert "1 image could not be evaluated and counts neither" in says
  assert "1 of them is not listed here" in says
  assert "The surest is shown" in _section(page, "m-suspicious").text
  labels = [f"label {number:03}" for number in range(101)]
  pairs = [(label, label) for label in labels] + [(labels[0], labels[1])]
  page = read(render(Sample(metrics_json(evaluate_in_memory(pairs, labels)), {})))
  assert "1 of 1 mistake is between them" in _section(page, "m-matrix").text
  assert "1 more is in per_label.csv" in _section(page, "labels").text


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
  assert says in _section(page, "compared").text
  assert says in page.only("header").text


def test_bare_figures_are_enough() -> None:
  metrics = metrics_json(evaluate_in_memory([("a", "a"), ("a", "b")], ["a", "b"]))
  del metrics["calibration"]
  for row in metrics["per_label"].values():
    del row["recall_interval_95"], row["precision_interval_95"]
  page = read(render(Sample(metrics, {}, title="bare")))
  assert "50.00 %" in page.only("header").text
  for name in ("gates", "compared", "trend", "slices", "m-suspicious", "m-calibration"):
    assert not _has_section(page, name)
  assert not page.every("svg")


def test_no_image_at_all() -> None:
  metrics = metrics_json(evaluate_in_memory([], ["a", "b"]))
  page = read(render(Sample(metrics, {}, title="nothing")))
  assert "accuracy unknown" in page.only("header").text
  assert "There are no mistakes." in _section(page, "m-matrix").text
  assert "nothing to compare" in _section(page, "m-calibration").text
  empty = {"night": "2026-11-01", "accuracy": None, "accuracy_interval_95": [0, 1], "total": 0, "verdict": "none set"}
  nights = [{**empty, "night": f"2026-11-0{day}", "per_label": {"a": None, "b": None}} for day in (1, 2)]
  page = read(render(Sample({**metrics, "night": "2026-11-02"}, {}, trend=nights)))
  assert len(_section(page, "trend").every("svg")) == 1


def test_the_first_night_has_no_trend_yet() -> None:
  sample = evaluation(number=50)
  sample.metrics["night"] = "2026-11-24"
  assert "The first night" in _section(read(render(sample)), "trend").text


def test_the_trend_shows_the_labels_that_are_worst() -> None:
  labels = [f"label {number}" for number in range(30)]
  sample = night(labels, number=1_500)
  tonight = sample.trend[-1]["per_label"]
  shown = [small.only("b").text for small in _section(read(render(sample)), "trend").every("div", class_="small")]
  assert shown == sorted(labels, key=lambda label: tonight[label])[:12]


def test_of_many_labels_the_matrix_shows_those_with_most_mistakes() -> None:
  labels = [f"label {number:04}" for number in range(1_000)]
  pairs = [(label, label) for place, label in enumerate(labels) for _ in range(1 + 500 * (place < 30))]
  bad = labels[3::20][:45]
  for place, label in enumerate(bad):
    pairs += [(label, bad[place - 1])] * (100 - place)
  page = read(render(Sample(metrics_json(evaluate_in_memory(pairs, labels)), {})))
  section = _section(page, "m-matrix")
  shown = [row.only("th").text for row in section.only("tbody").every("tr")]
  assert shown == sorted(shown)
  wrong = {label: 100 - place + 100 - (place + 1) % 45 for place, label in enumerate(bad)}
  assert set(shown) == set(sorted(bad, key=lambda label: -wrong[label])[:40])
  assert "960 more labels are in confusion_matrix.csv" in section.text
  between = sum(1 for actual, predicted in pairs if actual != predicted and {actual, predicted} <= set(shown))
  total = sum(1 for actual, predicted in pairs if actual != predicted)
  assert f"{between:,} of {total:,} mistakes are between them" in section.text
  assert "900 more are in per_label.csv" in _section(page, "labels").text
  assert len(_section(page, "labels").only("tbody").every("tr")) == 100


@pytest.fixture(scope="module")
def largest() -> Sample:
  """As large as a night gets: two models, 1,000 labels, long names, as many images of 4 KB as a job chooses."""
  labels = [f"{'a long label ' * 8}{number:04}" for number in range(1_000)]
  sample = night(labels, number=8_000)
  picture = next(picture for picture in sample.images["mistakes"] if picture["thumbnail"])
  image = f"data:image/jpeg;base64,{'A' * 4_096}"
  for kind, number in (("mistakes", 1_200), ("suspicious", 120), ("regressed", 60), ("fixed", 60)):
    shown = (sample.images[kind] * number)[:number] or [picture] * number
    sample.images[kind] = [
      {**one, "thumbnail": image, "key": f"{place}/" + "k" * 200} for place, one in enumerate(shown)
    ]
  sample.quarantined = [(f"{number}" + "q" * 200, "testing", 1, "EMPTY", "d" * 200) for number in range(500)]
  sample.metrics["quarantined"] = {"total": 250_000, "reasons": {"EMPTY": 250_000}}
  slices = {
    f"value {number}": {"pictures": 10**6, "correct": 1, "accuracy": 1e-6, "interval_95": [0, 1]}
    for number in range(5_000)
  }
  sample.metrics["slices"] = {f"column {number}": slices for number in range(50)}
  first = sample.trend[0]
  sample.trend = [
    {**first, "night": f"{2_020 + day // 336}-{day // 28 % 12 + 1:02}-{day % 28 + 1:02}"} for day in range(90)
  ]
  return sample


def test_the_largest_report_stays_under_ten_megabytes(largest: Sample) -> None:
  html = render(largest)
  assert 5_000_000 < len(html.encode()) < 10_000_000
  section = _section(read(html), "quarantine")
  assert len(section.only("tbody").every("tr")) == 500
  assert "249,500 of them are not listed here" in section.text


def test_images_that_are_too_large_are_left_out() -> None:
  sample = evaluation(number=300, wrong=0.2)
  shown = [
    {**picture, "thumbnail": "data:image/jpeg;base64," + "A" * 1_000_000} for picture in sample.images["mistakes"]
  ]
  assert len(shown) > 12
  sample.images = {"mistakes": shown}
  page = read(render(sample))
  assert len(page.every("img")) == 6
  assert len(page.every("span", class_="missing")) == len(shown) - 6


@pytest.mark.parametrize("thumbnail", [None, "", "https://example.org/a.png", "javascript:alert(1)"])
def test_without_a_image_there_are_words(thumbnail: str | None) -> None:
  sample = evaluation(number=300)
  for kind in sample.images.values():
    for picture in kind:
      picture["thumbnail"] = thumbnail
  page = read(render(sample))
  assert not page.every("img")
  assert page.every("span", class_="missing")[0].text == "no image"


def test_the_bars_are_what_went_wrong() -> None:
  pairs = [("a", "a")] * 90 + [("a", "b")] * 10 + [("b", "b")] * 96 + [("b", "a")] * 4
  page = read(render(Sample(metrics_json(evaluate_in_memory(pairs, ["a", "b"])), {})))
  section = _section(page, "labels")
  assert "from 0 to 20 %" in section.text
  first = section.only("tbody").every("tr")[0]
  bar = first.every("span", class_="bar")[0]
  assert bar.only("i").attributes["style"] == "width:50.0%"
  left, width = (float(number) for number in re.findall(r":([\d.]+)%", bar.only("b").attributes["style"]))
  low, high = 1 - 0.944_77, 1 - 0.825_61  # Wilson's interval of 90 of 100
  assert left == pytest.approx(100 * low / 0.2, abs=0.05)
  assert left + width == pytest.approx(100 * high / 0.2, abs=0.05)


def test_slices(night_sample: Sample, night_page: Element) -> None:
  section = _section(night_page, "slices")
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
    rows = [[cell.text for cell in _cells(row)] for row in table.only("tfoot").every("tr")]
    expected = [("not in the manifest", beside["unlisted"])]
    if column == "writer":
      slices = beside["small"]["slices"]
      expected.insert(0, (f"{slices} slice{'s' * (slices > 1)} of fewer than 30 images", beside["small"]))
    assert [row[:3] for row in rows] == [[words, str(row["pictures"]), str(row["correct"])] for words, row in expected]
    for cells, (_, row) in zip(rows, expected, strict=True):
      low, high = row["interval_95"]
      assert cells[3] == f"{100 * row['accuracy']:.2f} %{100 * low:.1f} to {100 * high:.1f} %"


def test_a_value_of_the_manifest_may_be_any_text() -> None:
  sample = evaluation(number=100)
  row = {"pictures": 50, "correct": 40, "accuracy": 0.8, "interval_95": [0.7, 0.9]}
  sample.metrics["slices"] = {"w": {"not in the manifest": row}}
  table = _section(read(render(sample)), "slices").only("table")
  assert table.only("tbody").only("th").text == "not in the manifest"
  assert not table.every("tfoot")


def test_quarantined_files_have_their_reasons(night_sample: Sample, night_page: Element) -> None:
  section = _section(night_page, "quarantine")
  assert "3 images could not be evaluated" in section.text
  assert "1 EMPTY, 2 TRUNCATED" in section.text
  cells = [[cell.text for cell in _cells(row)] for row in section.only("tbody").every("tr")]
  assert cells[1] == [
    "testing/7/half.jpg",
    "testing",
    "1,204",
    "TRUNCATED",
    "The image ends after 612 of 1,816 bytes.",
  ]


def test_what_made_it(night_sample: Sample, night_page: Element) -> None:
  section = _section(night_page, "made")
  assert section.only("code").text == night_sample.info["command"]
  facts = section.every("dl")[0].text
  for text in ("models/mnist-tenth", "8a8aee09" * 8, "0d15ea5e" * 8, "3731b802" * 8, "2,786 reused"):
    assert text in facts
  assert "apache-beam 2.77.0" in section.only("p", class_="versions").text


def test_the_same_figures_give_the_same_bytes(night_sample: Sample) -> None:
  import matplotlib

  html = render(copy.deepcopy(night_sample))
  with matplotlib.rc_context({"font.size": 31, "axes.grid": True, "lines.linewidth": 9, "svg.fonttype": "path"}):
    assert render(night_sample) == html
    assert matplotlib.rcParams["font.size"] == 31


def test_the_charts_take_the_colours_of_the_page(night_page: Element) -> None:
  styles = " ".join(
    element.attributes.get("style", "") for chart in night_page.every("svg") for element in chart.below()
  )
  assert "currentColor" in styles
  assert "var(--accent)" in styles
  assert not re.search(r"#0101|#000|#fff", styles)


def test_text_on_the_heat_map_can_be_read() -> None:
  colours = heat_colours()
  assert len(set(colours)) == LEVELS
  brightness = [luminance(_rgb(background)) for background, _ in colours]
  assert brightness == sorted(brightness)
  assert all(_contrast(background, text) >= 4.5 for background, text in colours)


@pytest.mark.parametrize("scheme", [0, 1])
def test_text_on_the_page_can_be_read(night_page: Element, scheme: int) -> None:
  colours = dict(
    re.findall(r"--(\w+): (#\w{6})", re.findall(r":root \{(.*?)\}", night_page.only("style").text)[scheme])
  )
  for paper in ("paper", "wash"):
    for name in ("ink", "muted", "accent", "good", "bad"):
      assert _contrast(colours[paper], colours[name]) >= 4.5, (paper, name)


def _rgb(colour: str) -> list[float]:
  return [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]


def _contrast(one: str, other: str) -> float:
  """Returns the contrast ratio of WCAG 2.2, 1..21."""
  darker, lighter = sorted(luminance(_rgb(colour)) for colour in (one, other))
  return (lighter + 0.05) / (darker + 0.05)


def test_heat_levels() -> None:
  assert [heat_level(number, 100) for number in (0, 1, 25, 100)] == [0, 1, round(4.5), LEVELS - 1]
  assert heat_level(1, 1) < LEVELS - 1, "a lone mistake does not look like the worst"
  assert heat_level(1, 10**9) == 1


def test_importing_the_report_loads_neither_jinja2_nor_matplotlib() -> None:
  code = "import sys, beam_retrain.reporting.html_report\n"
  code += "print(sorted({'jinja2', 'matplotlib', 'numpy'} & set(sys.modules)))"
  root = Path(__file__).parents[2]
  ended = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
  assert ended.stdout == "[]\n"


def test_the_sample_is_as_wrong_as_it_says() -> None:
  wrong = sum(outcome.actual != outcome.predicted for outcome in outcomes(list("abc"), 3_000, 0.05))
  assert math.isclose(wrong / 3_000, 0.05, abs_tol=0.04)
