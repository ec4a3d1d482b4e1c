"""The report's matrix and its gallery of mistakes."""

from __future__ import annotations

import re

import pytest

from beam_retrain.transforms.core.metrics.label_stats import evaluate_in_memory
from beam_retrain.transforms.core.metrics.metrics_file import model_to_json
from tests.html_elements import Element, read
from tests.report_sample import Sample, evaluation
from tests.reporting.report_suite import has_section, night_page, night_sample, render, section_of

__all__ = ["night_page", "night_sample"]  # fixtures


def test_each_mistake_of_the_matrix_leads_to_its_images(night_sample: Sample, night_page: Element) -> None:
  for prefix, figures in (("m", night_sample.metrics), ("c", night_sample.metrics["candidate"])):
    table = figures["confusion_matrix"]
    section = section_of(night_page, f"{prefix}-matrix")
    rows = section.only("table", class_="matrix").every("tr")[1:]
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
      group = section_of(night_page, f"{prefix}-mistakes").only("div", id=target[1:])
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
  links = section_of(page, "m-matrix").only("table", class_="matrix").every("a")
  bare = ["none shown" in page.only("div", id=link.attributes["href"][1:]).text for link in links]
  assert len(links) > 2
  assert bare.count(False) == 1


def test_a_model_without_mistakes_says_so() -> None:
  page = read(render(evaluation(number=100, wrong=0.0)))
  section = section_of(page, "m-mistakes")
  assert section.every("p")[0].text.startswith("There are no mistakes. Beside them: right ones")
  assert len(section.every("figure")) == 40
  assert not has_section(page, "m-suspicious")
  assert "the model contradicts no label" in section_of(page, "made").text


def test_an_image_of_the_gallery_says_everything(night_sample: Sample, night_page: Element) -> None:
  picture = next(picture for picture in night_sample.images["mistakes"] if picture["thumbnail"])
  (figure,) = [
    figure
    for figure in section_of(night_page, "m-mistakes").every("figure")
    if figure.only("span", class_="file").text == picture["key"]
  ]
  assert figure.only("img").attributes["src"] == picture["thumbnail"]
  assert figure.only("img").attributes["alt"] == picture["key"]
  says = f"{picture['actual']} → {picture['predicted']} {picture['confidence']:.1f} %"
  assert figure.only("figcaption").text == f"{says} {picture['key']}"


def test_the_surest_mistakes_come_first(night_page: Element) -> None:
  for group in section_of(night_page, "c-mistakes").every("div", class_="pictures"):
    confidences = [float(figure.every("small")[0].text.split()[0]) for figure in group.every("figure")]
    assert confidences == sorted(confidences, reverse=True)


def test_a_label_spelled_as_in_a_csv_cell_finds_its_group() -> None:
  labels = ["=cmd", "ant"]
  stats = evaluate_in_memory([("=cmd", "ant"), ("ant", "ant")], labels)
  picture = {"model": "model", "key": "'=cmd/1.png", "actual": "'=cmd", "predicted": "ant", "confidence": 60.0}
  picture |= {"baseline_predicted": None, "baseline_confidence": None, "thumbnail": None}
  page = read(render(Sample(model_to_json(stats), {"mistakes": [picture]})))
  (link,) = section_of(page, "m-matrix").only("table", class_="matrix").every("a")
  assert page.only("div", id=link.attributes["href"][1:]).only("span", class_="file").text == "'=cmd/1.png"


def test_of_many_labels_the_matrix_shows_those_with_most_mistakes() -> None:
  labels = [f"label {number:04}" for number in range(1_000)]
  pairs = [(label, label) for place, label in enumerate(labels) for _ in range(1 + 500 * (place < 30))]
  bad = labels[3::20][:45]
  for place, label in enumerate(bad):
    pairs += [(label, bad[place - 1])] * (100 - place)
  page = read(render(Sample(model_to_json(evaluate_in_memory(pairs, labels)), {})))
  section = section_of(page, "m-matrix")
  shown = [row.only("th").text for row in section.only("table", class_="matrix").only("tbody").every("tr")]
  assert shown == sorted(shown)
  wrong = {label: 100 - place + 100 - (place + 1) % 45 for place, label in enumerate(bad)}
  assert set(shown) == set(sorted(bad, key=lambda label: -wrong[label])[:40])
  assert "960 more labels are in confusion_matrix.csv" in section.text
  between = sum(1 for actual, predicted in pairs if actual != predicted and {actual, predicted} <= set(shown))
  total = sum(1 for actual, predicted in pairs if actual != predicted)
  assert f"{between:,} of {total:,} mistakes are between them" in section.text
  assert "900 more are in per_label.csv" in section_of(page, "labels").text
  assert len(section_of(page, "labels").only("tbody").every("tr")) == 100


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
def test_without_an_image_there_are_words(thumbnail: str | None) -> None:
  sample = evaluation(number=300)
  for kind in sample.images.values():
    for picture in kind:
      picture["thumbnail"] = thumbnail
  page = read(render(sample))
  assert not page.every("img")
  assert page.every("span", class_="missing")[0].text == "no image"


def test_the_bar_is_the_recall() -> None:
  pairs = [("a", "a")] * 90 + [("a", "b")] * 10 + [("b", "b")] * 96 + [("b", "a")] * 4
  page = read(render(Sample(model_to_json(evaluate_in_memory(pairs, ["a", "b"])), {})))
  section = section_of(page, "labels")
  first = section.only("tbody").every("tr")[0]
  bar = first.every("span", class_="bar")[0]
  assert bar.only("i").attributes["style"] == "width:90.0%"
  left, width = (float(number) for number in re.findall(r":([\d.]+)%", bar.only("b").attributes["style"]))
  low, high = 0.825_61, 0.944_77  # Wilson's interval of 90 of 100
  assert left == pytest.approx(100 * low, abs=0.05)
  assert left + width == pytest.approx(100 * high, abs=0.05)
  assert first.every("td", class_="rate")[0].text == "90.0 % 83 to 94 %"


def test_right_ones_stand_beside_the_mistakes(night_sample: Sample, night_page: Element) -> None:
  section = section_of(night_page, "m-mistakes")
  shown = {
    label.only("h3").text.split()[0]: [file.text for file in group.every("span", class_="file")]
    for label in section.every("div", class_="label")
    for group in label.every("div", class_="good")
  }
  expected: dict[str, list[str]] = {}
  for picture in night_sample.images["right"]:
    expected.setdefault(picture["actual"], []).append(picture["key"])
  assert {label: sorted(keys) for label, keys in shown.items()} == {k: sorted(v) for k, v in expected.items()}
  assert list(map(len, shown.values())) == [4] * 10
  assert not section_of(night_page, "c-mistakes").every("div", class_="good")


def test_each_image_is_a_link_to_itself_enlarged(night_page: Element) -> None:
  figures = [figure for figure in night_page.every("figure") if figure.every("img")]
  assert len(figures) > 100
  for figure in figures:
    assert figure.only("a", class_="enlarge").attributes["href"] == f"#{figure.attributes['id']}"
    assert figure.only("a", class_="close").attributes["href"] != f"#{figure.attributes['id']}"
