"""Manifests of images as people write them, what becomes of their paths, and what they get wrong."""

from __future__ import annotations

import io

import pytest

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.labels import merged
from beam_retrain.transforms.core.records.csv_format import by_key
from beam_retrain.transforms.core.records.input_manifest import ManifestRow, key_of, path_of, read_images, summarise

_HOME = "/data/set"
_SOURCE = f"{_HOME}/m.csv"


def _read(text: str, source: str = _SOURCE) -> list[ManifestRow]:
  return list(read_images(io.StringIO(text, newline=""), source))


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_columns_come_in_any_order_with_others_and_blank_lines_between(mark):
  text = (
    mark + ',split,label,note,note,file_name\r\n0,testing,"cat, big",,=1+1,a/1.jpg\r\n\r\n1,training,dog,x,y,b.png\r\n'
  )
  assert _read(text) == [
    ManifestRow(2, "a/1.jpg", "cat, big", f"{_HOME}/a/1.jpg", "testing", "cat, big"),
    ManifestRow(4, "b.png", "dog", f"{_HOME}/b.png", "training", "dog"),
  ]


def test_without_a_column_split_no_image_has_one():
  assert [row.split for row in _read("file_name,label\na,x\nb,y\n")] == [None, None]


def test_names_are_taken_as_they_are_even_if_they_look_like_cells_of_ours():
  assert [row.path for row in _read("file_name,label\n'=a,x\n=a,y\n")] == [f"{_HOME}/'=a", f"{_HOME}/=a"]


def test_spaces_before_a_quote_do_not_count():
  assert [(row.key, row.label) for row in _read('file_name, label\na, "x, y"\n "b",z\n')] == [("a", "x, y"), ("b", "z")]


@pytest.mark.parametrize(
  ("folder", "name", "path", "key"),
  [
    (_HOME, "a/1.jpg", f"{_HOME}/a/1.jpg", "a/1.jpg"),
    (_HOME, "./a//1.jpg", f"{_HOME}/./a//1.jpg", "a/1.jpg"),
    (_HOME, "b/../a/1.jpg", f"{_HOME}/b/../a/1.jpg", "a/1.jpg"),
    (_HOME, f"{_HOME}/a/1.jpg", f"{_HOME}/a/1.jpg", "a/1.jpg"),
    (_HOME, "../set/a/1.jpg", f"{_HOME}/../set/a/1.jpg", "a/1.jpg"),
    (_HOME, "../other/1.jpg", f"{_HOME}/../other/1.jpg", "other/1.jpg"),
    (_HOME, "../../../../etc/1.jpg", f"{_HOME}/../../../../etc/1.jpg", "etc/1.jpg"),
    (_HOME, "/data/settled/1.jpg", "/data/settled/1.jpg", "data/settled/1.jpg"),
    (_HOME, "gs://bucket/data/set/1.jpg", "gs://bucket/data/set/1.jpg", "bucket/data/set/1.jpg"),
    ("/", "a.jpg", "/a.jpg", "a.jpg"),
    ("s3://b/set", "a/1.jpg", "s3://b/set/a/1.jpg", "a/1.jpg"),
    ("s3://b/set", "../other/1.jpg", "s3://b/other/1.jpg", "other/1.jpg"),
    ("s3://b/set", "s3://b/set/a/1.jpg", "s3://b/set/a/1.jpg", "a/1.jpg"),
    ("s3://b/set", "gs://b/set/a/1.jpg", "gs://b/set/a/1.jpg", "b/set/a/1.jpg"),
    ("s3://b", "a.jpg", "s3://b/a.jpg", "a.jpg"),
    ("s3://b/set", "/b/set/1.jpg", "/b/set/1.jpg", "b/set/1.jpg"),
  ],
)
def test_paths_start_at_the_manifest_and_keys_are_relative_to_it(folder, name, path, key):
  assert path_of(name, folder) == path
  assert key_of(name, folder) == key
  (row,) = _read(f"file_name,label\n{name},x\n", f"{folder.rstrip('/')}/m.csv")
  assert (row.path, row.key) == (path, key)


def test_a_summary_is_what_the_driver_keeps():
  text = (
    "file_name,label,split\na,b,training\ns3://x/1,a,training\nc,b,validation\ns3://x/2,c,training\ngs://y/1,a,training"
  )
  summary = summarise(_read(text))
  assert summary.labels == ["a", "b", "c"]
  assert summary.splits == {"training", "validation"}
  assert summary.images == 5
  assert summary.schemes == {"s3": (3, "s3://x/1"), "gs": (6, "gs://y/1")}
  assert summarise(_read("file_name,label\na,b\n")).splits == frozenset()


@pytest.mark.parametrize(
  ("text", "sentence"),
  [
    ("", "/data/set/m.csv is empty: its first line must be file_name,label or file_name,label,split."),
    (
      "file_name,class\na,b\n",
      r"no column 'label' \(its columns: 'file_name', 'class'\): give the column of their labels this name",
    ),
    ("path,label\na,b\n", "no column 'file_name' .*: give the column of the images' paths this name"),
    ("file_name,label,label\na,b,c\n", "more than one column 'label': rename or remove one"),
    ("file_name,label,split,split\na,b,c,d\n", "more than one column 'split': rename or remove one"),
    ("file_name,label\n", "has a header but no rows: add a row per image."),
    ("file_name,label\na,b\nc\n", "line 3 has 1 cell, but the header has 2"),
    ("file_name,label\n,b\n", "line 2: '' is not a valid file_name: give the path of an image."),
    ("file_name,label\na,b\n..,b\n", r"line 3: '\.\.' is not a valid file_name"),
    ("file_name,label\n/,b\n", "line 2: '/' is not a valid file_name"),
    ("file_name,label\na/b/../..,b\n", r"line 2: 'a/b/\.\./\.\.' is not a valid file_name"),
    ("file_name,label\nfolder/,b\n", "line 2: 'folder/' is not a valid file_name"),
    ("file_name,label\na\0b,b\n", r"line 2: 'a\\x00b' is not a valid file_name"),
    ("file_name,label\na,\n", "line 2: '' cannot be a label"),
    ("file_name,label\na, \n", "line 2: '' cannot be a label"),
    ('file_name,label\na,"b\nc"\n', r"line 3: 'b\\nc' cannot be a label: give a name without control characters."),
    ("file_name,label\na,b\u2028c\n", "line 2: .* cannot be a label"),
    (
      "file_name,label,split\na,b,dev\n",
      "line 2: 'dev' is not a valid split: give training, validation or testing in every row, or remove the column.",
    ),
    ("file_name,label,split\na,b,testing\nc,d,\n", "line 3: '' is not a valid split"),
    ("File_Name,Label,SPLIT\na,b,0\n", "line 2: '0' is not a valid split"),
    ("file_name,Label,LABEL\na,b,c\n", "more than one column 'label': rename or remove one"),
    ("file_name,label\nC:\\x\\1.jpg,b\n", r"line 2: C:\\x\\1.jpg is a path of a Windows drive or share"),
    ("file_name,label\nc:/x/1.jpg,b\n", "line 2: c:/x/1.jpg is a path of a Windows drive or share"),
    (
      "file_name,label\n\\\\nas\\1.jpg,b\n",
      "is a path of a Windows drive or share, which is not known here: give paths",
    ),
    ('file_name,label\na,"b\n', r"line 2 is not CSV \(unexpected end of data\): fix it"),
  ],
)
def test_what_is_wrong_is_told_with_the_line_and_the_remedy(text, sentence):
  with pytest.raises(InputError, match=sentence) as raised:
    _read(text)
  assert str(raised.value).startswith(_SOURCE)


def test_two_spellings_of_one_image_are_told():
  rows = _read("file_name,label\na/=1,x\nb,x\n./a/=1,y\n")
  assert list(by_key(rows[:2], _SOURCE)) == ["a/=1", "b"]
  with pytest.raises(InputError, match="lines 2 and 4 both name 'a/=1': remove one of them"):
    by_key(reversed(rows), _SOURCE)


def test_white_space_case_and_short_names_of_splits_do_not_count():
  text = "\ufeffFile_Name , LABEL,Split\n a/1.jpg , cat ,Train\nb.jpg,cat, VAL\nc.jpg,\u00a0dog,valid\nd.jpg,dog,test\n"
  assert [(row.key, row.label, row.split) for row in _read(text)] == [
    ("a/1.jpg", "cat", "training"),
    ("b.jpg", "cat", "validation"),
    ("c.jpg", "dog", "validation"),
    ("d.jpg", "dog", "testing"),
  ]
  # A column that is named exactly wins, as before.
  assert [row.label for row in _read("Label,file_name,label\nx,a,cat\n")] == ["cat"]


def test_two_spellings_of_a_label_in_unicode_are_one_and_told():
  summary = summarise(_read("file_name,label\na,K\u00e4fer\nb,Ka\u0308fer\nc,cat\n"))
  assert summary.labels == ["K\u00e4fer", "cat"]
  assert [sentence.partition(":")[0] for sentence in merged(summary.cells)] == [
    r"'Ka\u0308fer' and 'K\xe4fer' are one label, 'K" "\u00e4fer'"
  ]


def test_backslashes_are_those_of_windows_unless_a_file_has_one(tmp_path):
  (tmp_path / "odd\\1.jpg").touch()
  rows = _read("file_name,label\nset\\cat\\1.jpg,x\n..\\b/2.jpg,x\nodd\\1.jpg,x\n", f"{tmp_path}/m.csv")
  assert [row.key for row in rows] == ["set/cat/1.jpg", "b/2.jpg", "odd\\1.jpg"]
  assert rows[0].path == f"{tmp_path}/set/cat/1.jpg"
  assert [row.key for row in _read("file_name,label\na\\1.jpg,x\ns3://b/a\\2.jpg,y\n", "s3://b/m.csv")] == [
    "a/1.jpg",
    "a\\2.jpg",
  ]
