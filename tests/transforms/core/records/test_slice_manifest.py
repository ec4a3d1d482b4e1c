"""Manifests as people write them, and what they get wrong."""

from __future__ import annotations

import io
import itertools

import pytest

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.csv_format import by_key
from beam_retrain.transforms.core.records.slice_manifest import ManifestRow, read_columns, read_manifest


def _lines(text: str) -> io.StringIO:
  return io.StringIO(text, newline="")


def _read(text: str) -> list[ManifestRow]:
  return list(read_manifest(_lines(text), "m.csv"))


def test_file_name_may_be_any_column():
  text = 'writer,file_name,device\nw1,a/1.jpg,phone\n\n"w, 2",a/2.jpg,\n'
  assert read_columns(_lines(text), "m.csv") == ("writer", "device")
  assert _read(text) == [ManifestRow(2, "a/1.jpg", ("w1", "phone")), ManifestRow(4, "a/2.jpg", ("w, 2", "(empty)"))]


@pytest.mark.parametrize("header", ["\ufefffile_name,writer", '\ufeff"file_name","writer"', "file_name, writer"])
def test_byte_order_marks_and_spaces_in_the_header_are_no_part_of_a_name(header):
  assert read_columns(_lines(f"{header}\r\na,b\r\n"), "m.csv") == ("writer",)
  assert _read(f"{header}\r\na,b\r\n") == [ManifestRow(2, "a", ("b",))]


def test_keys_are_spelled_as_in_the_predictions_whether_escaped_or_not():
  rows = _read('file_name,w\n=a.jpg,1\n\'=b.jpg,2\n"c\rd.jpg",3\ne\\rf.jpg,4\n')
  assert [row.key for row in rows] == ["'=a.jpg", "'=b.jpg", "c\\rd.jpg", "e\\rf.jpg"]


def test_values_are_left_as_they_are():
  assert _read("file_name,w\na,=1+1\n") == [ManifestRow(2, "a", ("=1+1",))]


def test_is_read_a_line_at_a_time():
  taken = itertools.count()
  lines = (f"{next(taken)},x\n" if number else "file_name,w\n" for number in range(1_000))
  next(read_manifest(lines, "m.csv"))
  assert next(taken) == 1
  assert read_columns(itertools.chain(["file_name,w\n"], _explode()), "m.csv") == ("w",)


def _explode():
  raise AssertionError("read past the header")
  yield ""


@pytest.mark.parametrize(
  ("text", "sentence"),
  [
    ("", "m.csv is empty: its first line must be 'file_name' and the columns to slice by."),
    ("\n\n", "m.csv is empty"),
    ("name,writer\na,b\n", r"m.csv has no column 'file_name' \(its columns: 'name', 'writer'\): give the column of"),
    (
      "file_name;writer\na;b\n",
      r"no column 'file_name' \(its columns: 'file_name;writer'\): .* separate columns with commas",
    ),
    ("a,b,c,d,e,f\n", r"\(its columns: 'a', 'b', 'c', 'd', 'e' and 1 more\)"),
    ("file_name,w,\na,b,c\n", "m.csv: column 3 has no name: add one in line 1, or remove the column."),
    ("file_name,w,w\na,b,c\n", "m.csv has more than one column 'w': rename or remove one in line 1."),
    ("file_name,file_name\na,b\n", "more than one column 'file_name'"),
    ("file_name\na\n", "m.csv has no column besides 'file_name': add one to slice by, or leave --manifest out."),
    ("file_name,w\n\n", "m.csv has a header but no rows: add a row per image, or leave --manifest out."),
    ("file_name,w\na,b\nc\n", "m.csv: line 3 has 1 cell, but the header has 2: give every row one cell per column."),
    ("file_name,w\na,b,c\n", "m.csv: line 2 has 3 cells, but the header has 2"),
    ('file_name,w\na,"b\nc,d\n', r"m.csv: line 3 is not CSV \(unexpected end of data\): fix it"),
    ('file_name,w\n"a"b,c\n', "m.csv: line 2 is not CSV"),
  ],
)
def test_what_is_wrong_is_told_with_the_file_and_the_remedy(text, sentence):
  with pytest.raises(InputError, match=sentence):
    _read(text)


def test_a_header_that_is_wrong_is_told_before_the_rows_are_read():
  with pytest.raises(InputError, match="no column 'file_name'"):
    read_columns(_lines("name,writer\n"), "m.csv")


def test_text_that_is_not_utf_8_is_told():
  lines = io.TextIOWrapper(io.BytesIO("file_name,w\n\xe9,b\n".encode("latin-1")), "utf-8", newline="")
  with pytest.raises(InputError, match=r"m\.csv is not UTF-8 text: save it as CSV in UTF-8"):
    list(read_manifest(lines, "m.csv"))


@pytest.mark.parametrize(("name", "cause"), [("none.csv", "No such file or directory"), (".", "Is a directory")])
def test_a_file_that_cannot_be_opened_is_named_once(tmp_path, name, cause):
  path = str(tmp_path / name)

  def lines():
    with open(path, encoding="utf-8", newline="") as file:
      yield from file

  for read in (read_columns, lambda *given: list(read_manifest(*given))):
    with pytest.raises(InputError) as raised:
      read(lines(), path)
    assert str(raised.value) == f"{path} cannot be read ({cause}): give another --manifest, or leave it out."


def test_an_image_comes_once():
  rows = _read("file_name,w\n=a,1\nb,2\nc,3\n'=a,4\n")
  assert list(by_key(rows[:3], "m.csv")) == ["'=a", "b", "c"]
  with pytest.raises(InputError, match=r"m.csv: lines 2 and 5 both name \"'=a\": remove one of them."):
    by_key(reversed(rows), "m.csv")
