"""A class without an image in some split is told before the long work."""

import re
import struct
from collections import Counter
from pathlib import Path

import pytest

from beam_retrain.transforms.core.errors import InputError, user_sentence
from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.schema import TESTING, TRAINING, VALIDATION, Image, encode_image
from beam_retrain.transforms.core.records.shards import Shard
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.records.tfrecord import frame
from beam_retrain.transforms.shards.checks import CheckSplits, check_counts, count_labels
from beam_retrain.transforms.sources.find import find_source
from beam_retrain.transforms.sources.idx import IdxRange
from beam_retrain.transforms.sources.image_files import ImageFile
from beam_retrain.transforms.sources.records import PickedRecords, RecordsFile
from tests.helpers import noise_image, write

_FULL = {(split, label): 1 for split in (TRAINING, VALIDATION, TESTING) for label in "ab"}


def test_nothing_is_missing():
  assert check_counts(_FULL, "ab", SplitPercentages()) == _FULL


@pytest.mark.parametrize("split", [TRAINING, VALIDATION, TESTING])
def test_the_class_and_the_split_are_named(split):
  counts = {**_FULL, (split, "b"): 0}
  with pytest.raises(InputError, match=f"no {split} image of class 'b': add images"):
    check_counts(counts, "ab", SplitPercentages())


@pytest.mark.parametrize(("images", "remedy"), [(2, "class."), (3, "class, or change --testing_percentage and --val")])
def test_percentages_are_a_remedy_only_for_a_class_that_could_be_split(images, remedy):
  with pytest.raises(InputError, match=f"50 in a class are enough as a rule, or remove the {remedy}"):
    check_counts({**_FULL, (TRAINING, "b"): images - 1, (VALIDATION, "b"): 0}, "ab", SplitPercentages())


def test_a_fraction_in_place_of_a_percentage_is_told():
  with pytest.raises(InputError, match=r"\(--testing_percentage 0.3 is less than one image in a hundred\)"):
    check_counts({**_FULL, (TESTING, "b"): 0}, "ab", SplitPercentages(testing=0.3))


def test_validation_that_nobody_wants_is_not_missed():
  counts = {key: count for key, count in _FULL.items() if key[0] != VALIDATION}
  assert check_counts(counts, "ab", SplitPercentages(validation=0)) == counts


def test_validation_that_the_data_set_names_is_missed_where_a_class_has_none():
  counts = {**_FULL, (VALIDATION, "b"): 0}
  with pytest.raises(InputError, match="no validation image of class 'b': add images"):
    check_counts(counts, "ab", SplitPercentages(validation=0))


def test_where_dropping_left_none_that_is_said():
  counts = {**_FULL, (TRAINING, "a"): 0, (TRAINING, "b"): 0}
  with pytest.raises(InputError) as raised:
    check_counts(counts, "ab", SplitPercentages(), dropped={(TRAINING, "b"): 2, (TESTING, "a"): 1})
  assert str(raised.value) == (
    "--on_leak drop leaves no training image of class 'b': list the leaks with --on_leak warn and fix them,"
    " add images, or remove the class."
  )
  only_validation = {key: count for key, count in _FULL.items() if key[0] != VALIDATION}
  with pytest.raises(InputError, match="--on_leak drop leaves no validation image of class 'a'"):
    check_counts(only_validation, "ab", SplitPercentages(validation=0), dropped={(VALIDATION, "a"): 1})


def test_images_that_are_all_bad_are_no_matter_of_their_number(tmp_path: Path, collect):
  write(tmp_path, {"a/1.jpg": b"no image", "a/2.jpg": b"", "b/1.png": noise_image(1)[:60]})
  source = find_source(str(tmp_path))

  def check() -> None:
    plan = source.plan((TRAINING, TESTING), SplitPercentages())
    collect(plan | CheckSplits(source.labels, SplitPercentages()))

  with pytest.raises(Exception, match="images") as raised:
    check()
  assert user_sentence(raised.value) == (
    "none of 3 images can be used, such as a/1.jpg (neither JPEG, PNG, BMP, GIF nor WebP): give JPEG, PNG, BMP, GIF or"
    " WebP files."
  )
  write(tmp_path, {"b/2.png": noise_image(1)})
  with pytest.raises(Exception, match="image") as raised:
    check()
  assert re.match(r"no \w+ image of class(es)? '[ab]'.*: add images", user_sentence(raised.value))


def test_a_manifest_of_missing_files_is_no_matter_of_their_number(tmp_path: Path, collect):
  write(tmp_path, {"m.csv": b"file_name,label\n1.png,a\n2.png,b\n"})
  source = find_source(str(tmp_path / "m.csv"))
  with pytest.raises(Exception, match="images") as raised:
    collect(source.plan((TRAINING,), SplitPercentages()) | CheckSplits(source.labels, SplitPercentages()))
  assert user_sentence(raised.value).startswith("none of 2 images can be used, such as ")


def test_counts_records(tmp_path: Path):
  images = [Image(f"training/{number % 2}/{number}.jpg", str(number % 2), b"not looked at") for number in range(60)]
  path = tmp_path / "training-00000-of-00001.tfrecord"
  path.write_bytes(b"".join(frame(encode_image(image, int(image.label))) for image in images))
  percentages = SplitPercentages()
  dropped = Quarantined("training/0/0.jpg", 1, Reason.LEAKED, "", TRAINING)
  for inputs, read in (
    ((RecordsFile(str(path), 0, 0.0),), images),
    ((PickedRecords(str(path), 0, 0.0, tuple(range(1, 60, 2))), dropped), images[1::2]),
  ):
    counted = dict(count_labels(Shard(TRAINING, 0, 1, inputs), percentages))
    assert counted == Counter((percentages.split_of(image.key, TRAINING), image.label) for image in read)
    assert {split for split, _ in counted} == {TRAINING, VALIDATION}


def test_many_missing_classes_are_not_all_listed():
  with pytest.raises(InputError, match=r"no training image of classes '0', '1', '2', '3', '4', \.\.\.:"):
    check_counts({}, "0123456789", SplitPercentages())


def test_counts_files_and_idx_labels(tmp_path: Path):
  percentages = SplitPercentages()
  files = tuple(ImageFile(f"training/a/{number}", "a", "", 1, 0.0) for number in range(50))
  counted = dict(count_labels(Shard(TRAINING, 0, 1, files), percentages))
  assert sum(counted.values()) == 50
  assert {split for split, _ in counted} == {TRAINING, VALIDATION}
  labels_path = tmp_path / "labels"
  labels_path.write_bytes(struct.pack(">BBBBI", 0, 0, 8, 1, 5) + bytes([7, 1, 2, 1, 9]))
  entry = IdxRange("", str(labels_path), start=1, count=3, rows=1, columns=1, pixels=None, labels=None)
  assert dict(count_labels(Shard(TESTING, 0, 1, (entry,)), percentages)) == {(TESTING, "1"): 2, (TESTING, "2"): 1}
