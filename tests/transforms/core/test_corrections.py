import hashlib
import tracemalloc

import pytest

from beam_retrain.transforms.core.corrections import (
  COLUMNS,
  Correcting,
  Correction,
  Corrections,
  corrections_csv,
  read_rows,
  sum_tallies,
)
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.schema import Image

ONE, TWO = (hashlib.sha256(data).hexdigest() for data in (b"one", b"two"))
HEADER = ",".join(COLUMNS)


def parse(*lines: str) -> Corrections:
  return Corrections.parse([f"{line}\n" for line in (HEADER, *lines)], "c.csv")


def test_relabel_and_drop_correct_and_the_others_change_nothing():
  found = parse(
    f"a,{ONE},cat,dog,relabel,", f"b,{TWO},cat,,drop,", f"c,{'0' * 64},cat,cat,keep,", f"d,{'1' * 64},x,,unsure,"
  )
  assert found.labels == {bytes.fromhex(ONE): "dog", bytes.fromhex(TWO): ""}
  assert found.named == {"a": (bytes.fromhex(ONE),), "b": (bytes.fromhex(TWO),)}
  assert (found.lines, found.labels_was) == ({"dog": 2}, {"cat"})


def test_neither_order_nor_notes_change_the_digest():
  lines = [f"a,{ONE},cat,dog,relabel,", f"b,{TWO},cat,,drop,"]
  assert (
    parse(*lines).digest
    == parse(*reversed(lines), f"c,{TWO},x,,unsure,").digest
    == parse(lines[0] + "why", lines[1]).digest
  )
  assert (
    len({parse(*lines).digest, parse(lines[0]).digest, parse(lines[0].replace("dog", "cow"), lines[1]).digest}) == 3
  )


def test_spreadsheets_files_are_read():
  text = f"\ufeffDecision,label,label_was,sha256,file_name\r\nrelabel, dog ,cat,{ONE.upper()},'=a\r\n\r\n"
  ((line, image, correction),) = read_rows(text.splitlines(keepends=True), "c.csv")
  assert (line, image, correction) == (2, ("=a", ONE), Correction("cat", " dog ", "relabel"))


def test_labels_are_normalised():
  assert set(parse(f"a,{ONE},cat, dog ,relabel,").labels.values()) == {"dog"}


def test_a_file_in_which_nothing_is_decided_corrects_nothing():
  assert parse().labels == {}


@pytest.mark.parametrize(
  ("text", "says"),
  [
    ("", r"c\.csv is empty: its first line must be file_name,sha256,"),
    ("file_name,label\na,b\n", r"c\.csv has no column 'sha256' \(its columns: 'file_name', 'label'\)"),
    (f"{HEADER},mood\n", r"c\.csv has a column 'mood', which corrections do not have: remove it"),
    (f"{HEADER},label\n", "more than one column 'label'"),
    (f"{HEADER}\na,{ONE[1:]},cat,dog,relabel,\n", "line 2: the sha256 is not 64 hex digits: mend or remove"),
    (f"{HEADER}\na,{ONE},cat,dog,burn,\n", "line 2: the decision 'burn' is none of keep, relabel, drop, unsure"),
    (f"{HEADER}\na,{ONE},cat,,relabel,\n", "line 2: relabel needs a label"),
    (f"{HEADER}\na,{ONE},cat,dog,drop,\n", "line 2: drop has the label 'dog', which says something else"),
    (
      f"{HEADER}\na,{ONE},cat,dog,relabel,\nb,{ONE},cat,,drop,\n",
      "lines 2 and 3 decide differently on the same image, 'b'",
    ),
    (f"{HEADER}\na,{ONE},cat,dog,relabel,\na,{ONE},cat,cat,keep,\n", "lines 2 and 3 decide differently"),
    (f"{HEADER}\na,{ONE}\n", "line 2 has 2 cells, but the header has 6"),
    (f'{HEADER}\n"a,{ONE}\n', "line 2 is not CSV"),
  ],
)
def test_a_damaged_file_is_one_sentence(text, says):
  with pytest.raises(InputError, match=says) as raised:
    Corrections.parse(text.splitlines(keepends=True), "c.csv")
  assert "\n" not in str(raised.value)


def test_a_label_that_does_not_exist_is_a_sentence():
  with pytest.raises(
    InputError, match="line 2: 'dog' is none of the labels of photos \\('cat'\\): give one of these, or add"
  ):
    parse(f"a,{ONE},cat,dog,relabel,").check_labels(["cat"], "c.csv", "photos")


@pytest.fixture
def correcting(tmp_path):
  """Corrects by a file: `a` to dog, `b` to no class."""
  decided = {("a", ONE): Correction("cat", "dog", "relabel"), ("b", TWO): Correction("=cat", "", "drop")}
  path = tmp_path / "c.csv"
  path.write_text(corrections_csv(decided))
  read = _read_lines
  return Correcting(str(path), Corrections.parse(read(str(path)), "").digest, read)


def _read_lines(path):
  with open(path, newline="") as file:
    yield from file


def test_images_are_corrected_by_their_bytes_alone(correcting):
  assert correcting.correct(Image("other", "cat", b"one")) == Image("other", "dog", b"one")
  assert correcting.correct(Image("x", "cat", b"two")) == Quarantined(
    "x", 3, Reason.NO_CLASS, "corrected: an image of no class"
  )
  assert correcting.correct(Image("a", "cat", b"three")) == Image("a", "cat", b"three")
  assert correcting.tally.relabelled == 1
  assert correcting.tally.changed == ["a"]
  assert correcting.is_copy(Image("other", "cat", b"one"))
  assert not correcting.is_copy(Image("a", "cat", b"one"))
  assert correcting.begun().tally.met == []


def test_what_met_no_image_is_listed_with_the_reason(correcting):
  seen = correcting.begun()
  seen.correct(Image("b", "cat", b"new"))
  counts, unused = sum_tallies(correcting, [seen.tally], [])
  assert counts == {"relabelled": 0, "dropped": 0, "gone": 1, "changed": 1}
  assert unused.splitlines()[1:] == [f"a,{ONE},cat,dog,relabel,gone", f"b,{TWO},'=cat,,drop,changed"]
  unreadable = [Quarantined("a", 0, Reason.UNREADABLE, "")]
  assert sum_tallies(correcting, [seen.tally], unreadable)[0]["gone"] == 0


def test_a_file_that_changes_while_a_job_runs_is_a_sentence(correcting):
  with open(correcting.path, "a") as file:
    file.write(f"c,{'0' * 64},cat,dog,relabel,\n")
  with pytest.raises(InputError, match="changed while the job ran: run the command again"):
    correcting.load()


def test_many_corrections_take_bounded_memory():
  lines = (
    f"{HEADER}\n" if number == 0 else f"photos/{number}.jpg,{number:064x},cat,dog,relabel,\n"
    for number in range(20_001)
  )
  tracemalloc.start()
  found = Corrections.parse(lines, "c.csv")
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert len(found.labels) == 20_000
  assert peak < 20_000 * 600
