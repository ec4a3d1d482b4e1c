"""The report's HTML, read with a parser. What a browser makes of it is in test_report_chromium.py."""

from __future__ import annotations

import base64
import copy
import dataclasses
import hashlib
import itertools
import math
import re
import subprocess
import sys

import pytest

from beam_retrain.reporting.html_tables import label_positions
from beam_retrain.transforms.core.metrics.label_stats import evaluate_in_memory
from beam_retrain.transforms.core.metrics.metrics_file import model_to_json
from tests.helpers import ROOT
from tests.html_elements import Element, read
from tests.report_sample import HOSTILE, Sample, evaluation, night, outcomes
from tests.reporting.report_suite import cells_of, has_section, night_page, night_sample, render, section_of

__all__ = ["night_page", "night_sample"]  # fixtures


@pytest.mark.parametrize(
  ("gates", "word", "why"),
  [
    ({}, "No gate set", "no gate was set"),
    ({"min_accuracy": 0.9}, "Passed", "every gate that was set holds"),
    ({"min_accuracy": 0.99}, "Missed", "% is below 99 %"),
    ({"min_label_recall": 0.999}, "Missed", "recall of 6 labels is below 99.9 %"),
  ],
)
def test_title_figure_and_date_come_first_then_the_verdict(gates: dict[str, float], word: str, why: str) -> None:
  page = read(render(evaluation(number=500, **gates)))
  header, state = page.only("header"), word.lower() if gates else "none"
  first = [child for child in header.children if isinstance(child, Element)][:4]
  assert [one.attributes.get("class") for one in first][1:] == ["about", "models", f"verdict {state}"]
  assert first[0].text == "MNIST, 10,000 test images"
  assert first[1].only("time").text == "2026-11-24"
  assert first[2].only("strong").text.endswith("%")
  assert word in first[3].text
  assert why in first[3].text
  assert page.only("head").only("title").text == f"{word}: MNIST, 10,000 test images"


def test_accuracy_with_its_interval(night_sample: Sample, night_page: Element) -> None:
  metrics = night_sample.metrics
  model, candidate = night_page.only("header").every("div", class_="model")
  low, high = metrics["accuracy_interval_95"]
  assert model.only("strong").text == f"{100 * metrics['accuracy']:.1f} %"
  assert (
    f"{metrics['correct']:,} of 3,000 images right; 95 % interval {100 * low:.1f} to {100 * high:.1f} %" in model.text
  )
  assert candidate.only("strong").text == f"{100 * metrics['candidate']['accuracy']:.1f} %"


def test_each_gate_of_each_model_has_one_of_three_states(night_page: Element) -> None:
  rows = [[cell.text for cell in cells_of(row)] for row in section_of(night_page, "gates").every("tr")[1:]]
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
  assert [row.every("td")[0].text for row in section_of(page, "gates").every("tr")[1:]] == ["✓ passed", "○ none set"]


def test_nothing_outside_is_asked_for_and_one_script_runs(night_page: Element) -> None:
  policy = night_page.only("meta", http_equiv="Content-Security-Policy").attributes["content"]
  assert policy.startswith("default-src 'none';")
  assert "http" not in policy
  script = night_page.only("script")
  assert not script.attributes
  digest = base64.b64encode(hashlib.sha256("".join(map(str, script.children)).encode()).digest()).decode()
  assert f"script-src 'sha256-{digest}';" in policy
  for element in night_page.below():
    assert element.tag not in ("iframe", "object", "embed", "form", "base", "audio", "video")
    for name, value in element.attributes.items():
      assert not name.startswith("on"), element
      if name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
        assert value.startswith(("#", "data:")), element
      if name == "style":
        assert not re.search(r"url\((?!#)", value), element
  assert "url(" not in night_page.only("style").text
  assert "@import" not in night_page.only("style").text


@pytest.mark.parametrize("model", ["model", "candidate"])
def test_a_model_none_of_whose_images_are_here_has_no_gallery(model: str) -> None:
  sample = night(number=600)
  for kind in ("mistakes", "suspicious", "right"):
    sample.images[kind] = [picture for picture in sample.images[kind] if picture["model"] != model]
  figures = sample.metrics if model == "model" else sample.metrics["candidate"]
  figures["suspicious_labels"]["pictures"] = 3
  page = read(render(sample))
  test_every_link_leads_somewhere_and_no_id_is_given_twice(page)
  prefix, other = ("m", "c") if model == "model" else ("c", "m")
  section = section_of(page, f"{prefix}-matrix")
  assert not section.every("a")
  matrix = section.only("table", class_="matrix")
  rows = [[cell.text for cell in row.every("td")[:-1]] for row in matrix.only("tbody").every("tr")]
  assert rows == [[str(number) if number else "" for number in row] for row in figures["confusion_matrix"]]
  assert any(cell.attributes.get("class", "").startswith("h") for cell in matrix.every("td"))
  folder = "" if model == "model" else "candidate/"
  assert f"images went wrong; all are in {folder}predictions.csv." in section.text
  assert not has_section(page, f"{prefix}-mistakes")
  assert not has_section(page, f"{prefix}-suspicious")
  assert section_of(page, f"{other}-mistakes").every("figure")
  assert bool(section_of(page, "labels").every("a")) == (model == "candidate")


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


def test_hostile_names_are_only_text() -> None:
  sample = evaluation(HOSTILE, number=400, wrong=0.2)
  for kind in sample.images.values():
    for number, picture in enumerate(kind):
      picture["key"] = f'{HOSTILE[number % len(HOSTILE)]}" onerror="alert(4)" {number}.png'
  sample.quarantined = [(name, name, 1, name, name) for name in HOSTILE]
  sample.title = HOSTILE[0]
  sample.info = dataclasses.replace(sample.info, command=HOSTILE[1])
  sample.metrics["slices"] = {
    HOSTILE[0]: {HOSTILE[1]: {"pictures": 1, "correct": 1, "accuracy": 1.0, "interval_95": [0, 1]}}
  }
  tonight = {name: sample.metrics[name] for name in ("accuracy", "accuracy_interval_95", "total")}
  recalls = {label: row["recall"] for label, row in sample.metrics["per_label"].items()}
  sample.trend = [{**tonight, "night": name, "per_label": recalls} for name in HOSTILE]
  page = read(render(sample))
  test_nothing_outside_is_asked_for_and_one_script_runs(page)
  test_every_link_leads_somewhere_and_no_id_is_given_twice(page)
  assert {element.attributes["src"][:11] for element in page.every("img")} == {"data:image/"}
  assert page.only("h1").text == HOSTILE[0]
  assert [row.only("th").text for row in section_of(page, "labels").only("tbody").every("tr")] == list(HOSTILE)
  for element in page.below():
    assert not any(name in element.attributes.get("id", "") for name in HOSTILE)


def test_headings_scopes_and_alternatives(night_page: Element) -> None:
  levels = [int(element.tag[1]) for element in _in_order(night_page) if re.fullmatch("h[1-6]", element.tag)]
  assert levels[0] == 1
  assert levels.count(1) == 1
  assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
  assert night_page.only("html").attributes["lang"] == "en"
  assert all(th.attributes.get("scope") in ("col", "row") for th in night_page.every("th"))
  assert all(image.attributes["alt"] for image in night_page.every("img"))
  for chart in night_page.every("svg"):
    assert chart.attributes["role"] == ("group" if chart.attributes["class"] == "map" else "img")
    assert len(chart.attributes["aria-label"]) > 20
  for box in night_page.every("div", class_="scroll"):
    assert box.attributes["tabindex"] == "0"
    assert box.attributes["aria-label"]
  assert night_page.only("a", class_="skip").attributes["href"] == "#content"


def _in_order(element: Element) -> list[Element]:
  return [found for child in element.children if isinstance(child, Element) for found in (child, *_in_order(child))]


@pytest.mark.parametrize(("about", "word"), [({"night": "2026-11-24"}, "Not published"), ({}, "Unfinished")])
def test_more_bad_inputs_than_allowed_are_the_verdict(about: dict[str, str], word: str) -> None:
  sample = evaluation(number=300, min_accuracy=0.5)
  bad = {"quarantined": 3, "inputs": 1_803, "allowed": 0.0, "too_many": True}
  sample.metrics |= {**about, "bad_inputs": bad}
  page = read(render(sample))
  assert page.only("p", class_="verdict").text == f"✗ {word} 3 of 1,803 inputs are bad; every gate that was set holds"
  assert page.only("head").only("title").text.startswith(f"{word}: ")
  bad["too_many"] = False
  assert read(render(sample)).only("p", class_="verdict").text == "✓ Passed every gate that was set holds"


def test_labels_that_are_not_in_the_list_have_groups_of_their_own() -> None:
  sample = evaluation(number=300)
  strange = [
    {**sample.images["mistakes"][0], "actual": "1", "predicted": name, "key": f"{name}.png"} for name in ("zz", "yy")
  ]
  sample.images["mistakes"] += strange
  section = section_of(read(render(sample)), "m-mistakes")
  for place, name in ((10, "yy"), (11, "zz")):
    group = section.only("div", id=f"m-1-{place}")
    assert group.only("h4").text.startswith(f"taken for {name} 1 image")
    assert group.only("span", class_="file").text == f"{name}.png"


def test_a_label_is_found_as_it_is_and_as_a_cell() -> None:
  assert label_positions(["a", "=b"]) == {"a": 0, "=b": 1, "'=b": 1}
  assert label_positions(["=b", "'=b"]) == {"=b": 0, "'=b": 1, "''=b": 1}, "a label itself comes first"


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
  assert "at most 1 point " in section_of(page, "gates").text
  says = section_of(page, "slices").text
  for words in ("1 slice of fewer than 30 images", "1 more slice is in", "1 more column is in"):
    assert words in says
  says = section_of(page, "quarantine").text
  assert "1 image could not be evaluated and counts neither" in says
  assert "1 of them is not listed here" in says
  assert "The most confident one is shown" in section_of(page, "m-suspicious").text
  labels = [f"label {number:03}" for number in range(101)]
  pairs = [(label, label) for label in labels] + [(labels[0], labels[1])]
  page = read(render(Sample(model_to_json(evaluate_in_memory(pairs, labels)), {})))
  assert "1 of 1 mistake is between them" in section_of(page, "m-matrix").text
  assert "1 more is in per_label.csv" in section_of(page, "labels").text


def test_bare_figures_are_enough() -> None:
  metrics = model_to_json(evaluate_in_memory([("a", "a"), ("a", "b")], ["a", "b"]))
  del metrics["calibration"]
  for row in metrics["per_label"].values():
    del row["recall_interval_95"], row["precision_interval_95"]
  page = read(render(Sample(metrics, {}, title="bare")))
  assert "50.0 %" in page.only("header").text
  for name in ("gates", "compared", "trend", "slices", "m-suspicious", "m-calibration"):
    assert not has_section(page, name)
  assert not page.every("svg")


def test_no_image_at_all() -> None:
  metrics = model_to_json(evaluate_in_memory([], ["a", "b"]))
  page = read(render(Sample(metrics, {}, title="nothing")))
  assert "accuracy unknown" in page.only("header").text
  assert "There are no mistakes." in section_of(page, "m-matrix").text
  assert "nothing to compare" in section_of(page, "made").text
  empty = {"night": "2026-11-01", "accuracy": None, "accuracy_interval_95": [0, 1], "total": 0, "verdict": "none set"}
  nights = [{**empty, "night": f"2026-11-0{day}", "per_label": {"a": None, "b": None}} for day in (1, 2)]
  page = read(render(Sample({**metrics, "night": "2026-11-02"}, {}, trend=nights)))
  assert len(section_of(page, "trend").every("svg")) == 1


@pytest.fixture(scope="module")
def largest() -> Sample:
  """As large as a night gets: two models, 1,000 labels, long names, as many images of 4 KB as a job chooses."""
  labels = [f"{'a long label ' * 8}{number:04}" for number in range(1_000)]
  sample = night(labels, number=8_000)
  picture = next(picture for picture in sample.images["mistakes"] if picture["thumbnail"])
  image = f"data:image/jpeg;base64,{'A' * 4_096}"
  for kind, number in (("mistakes", 1_200), ("suspicious", 120), ("regressed", 60), ("fixed", 60), ("right", 240)):
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
  section = section_of(read(html), "quarantine")
  assert len(section.only("tbody").every("tr")) == 500
  assert "249,500 of them are not listed here" in section.text


def test_quarantined_files_have_their_reasons(night_sample: Sample, night_page: Element) -> None:
  section = section_of(night_page, "quarantine")
  assert "3 images could not be evaluated" in section.text
  assert "1 EMPTY, 2 TRUNCATED" in section.text
  cells = [[cell.text for cell in cells_of(row)] for row in section.only("tbody").every("tr")]
  assert cells[1] == [
    "testing/7/half.jpg",
    "testing",
    "1,204",
    "TRUNCATED",
    "The image ends after 612 of 1,816 bytes.",
  ]


def test_what_made_it(night_sample: Sample, night_page: Element) -> None:
  section = section_of(night_page, "made")
  assert section.only("code").text == night_sample.info.command
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


def test_importing_the_report_loads_neither_jinja2_nor_matplotlib() -> None:
  code = "import sys, beam_retrain.reporting.html_report\n"
  code += "print(sorted({'jinja2', 'matplotlib', 'numpy'} & set(sys.modules)))"
  ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
  assert ended.stdout == "[]\n"


def test_the_sample_is_as_wrong_as_it_says() -> None:
  wrong = sum(outcome.actual != outcome.predicted for outcome in outcomes(list("abc"), 3_000, 0.05))
  assert math.isclose(wrong / 3_000, 0.05, abs_tol=0.04)
