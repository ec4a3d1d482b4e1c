"""WebDataset tars: samples, labels, splits, shards, and what is damaged."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.schema import ALL, TESTING, TRAINING, Image
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.io.tars import find_tars
from beam_retrain.transforms.sources.find import find_source
from beam_retrain.transforms.sources.webdataset import PlanTars, WebDatasetSource
from tests.helpers import noise_image, write

_PERCENTAGES = SplitPercentages(testing=30.0)


def tar_of(members: Mapping[str, bytes], mode: str = "w") -> bytes:
  file = io.BytesIO()
  with tarfile.open(fileobj=file, mode=mode) as tar:
    for name, data in members.items():
      member = tarfile.TarInfo(name)
      member.size = len(data)
      tar.addfile(member, io.BytesIO(data))
  return file.getvalue()


def samples(start: int, count: int) -> dict[str, bytes]:
  """As img2dataset names and orders them, with class indices of two digits."""
  members = {}
  for number in range(start, start + count):
    name = f"{number:09}"
    members[f"{name}.jpg"] = noise_image(number, "JPEG")
    members[f"{name}.json"] = json.dumps({"key": name}).encode()
    members[f"{name}.cls"] = str(number % 11).encode()
  return members


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """Three tars of 30, 50 and 20 images, and what img2dataset writes beside them."""
  tars = {f"{n:05}.tar": tar_of(samples(*span)) for n, span in enumerate([(0, 30), (30, 50), (80, 20)])}
  root = write(tmp_path_factory.mktemp("tars"), tars)
  return write(root, {"00000.parquet": b"PAR1", "00000_stats.json": b"{}", "._00000.tar": b"a Mac's"})


def read_one(root: Path, tar: bytes) -> dict[str, Image | Quarantined]:
  source = find_source(str(write(root, {"0.tar": tar})), min_classes=1)
  return {item.key: item for item in source.read_all((ALL,), None)}


def test_samples_are_read_with_stable_keys_and_labels_in_the_order_of_their_numbers(folder):
  source = find_source(str(folder))
  assert isinstance(source, WebDatasetSource)
  assert source.labels == [str(number) for number in range(11)]
  read = list(source.read_all((ALL,), None))
  keys = [
    f"{n:05}.tar/{number:09}.jpg" for n, span in enumerate([(0, 30), (30, 80), (80, 100)]) for number in range(*span)
  ]
  assert read == [Image(key, str(n % 11), noise_image(n, "JPEG")) for n, key in enumerate(keys)]
  assert source.has_at_least(100)
  assert not source.has_at_least(101)


@pytest.mark.parametrize("size", [7, 1024])
def test_shards_are_full_and_of_neighbours(folder, collect, size):
  shards = collect(PlanTars(find_tars(str(folder)), (TRAINING, TESTING), _PERCENTAGES, size))
  source = find_source(str(folder))
  expected = list(source.read_all((TRAINING, TESTING), _PERCENTAGES))
  read = []
  for split in (TRAINING, TESTING):
    of_split = sorted((shard for shard in shards if shard.split == split), key=lambda shard: shard.index)
    counts = [sum(entry.count_images() for entry in shard.inputs) for shard in of_split]
    assert [shard.index for shard in of_split] == list(range(len(of_split)))
    assert {shard.of for shard in of_split} == {len(of_split)}
    assert set(counts[:-1]) <= {size}
    for shard in of_split:
      images = list(shard.read_images(source.labels))
      assert [(image.key, image.label) for image in images] == list(shard.names())
      read += [(split, image.key) for image in images]
  assert sorted(read) == sorted((_split_of(image.key), image.key) for image in expected)
  assert 15 < sum(split == TESTING for split, _ in read) < 45


def _split_of(key: str) -> str:
  return TESTING if _PERCENTAGES.split_of(key) == TESTING else TRAINING


def test_one_tar_samples_and_picks(folder):
  source = find_source(str(folder / "00001.tar"))
  every = {image.key: image for image in source.read_all((ALL,), None)}
  assert set(every) == {f"00001.tar/{number:09}.jpg" for number in range(30, 80)}
  sample = list(source.read_sample((ALL,), None, 9))
  assert len(sample) == 9
  assert all(every[image.key] == image for image in sample)
  shard, count = source.typical_shard((ALL,), None, 9)
  assert (count, list(shard.read_images(source.labels))) == (50, list(every.values()))
  wanted = [item for entry in shard.inputs for item in entry.read_where(ALL, lambda key: key.endswith("5.jpg"))]
  assert [item.key[-6:] for item in wanted] == ["35.jpg", "45.jpg", "55.jpg", "65.jpg", "75.jpg"]


def test_folders_of_splits(tmp_path, collect):
  tars = {f"{split}/0.tar": tar_of(samples(start, 6)) for split, start in ((TRAINING, 0), (TESTING, 6))}
  source = find_source(str(write(tmp_path, tars)))
  assert source.has_splits
  (shard,) = collect(source.plan((TESTING,), _PERCENTAGES))
  assert shard.split == TESTING
  assert [key for key, _ in shard.names()] == [f"testing/0.tar/{number:09}.jpg" for number in range(6, 12)]
  with pytest.raises(InputError, match="has tars beside its folders testing and training"):
    find_source(str(write(tmp_path, {"1.tar": tar_of(samples(0, 2))})))
  (tmp_path / "1.tar").unlink()
  (tmp_path / "testing/0.tar").unlink()
  with pytest.raises(InputError, match="has no folder testing with tars"):
    find_source(str(tmp_path)).plan((TRAINING, TESTING), _PERCENTAGES)


def test_an_image_with_a_dot_in_its_name_is_told_unless_it_is_another_field_of_a_sample(tmp_path):
  members = {**samples(0, 2), "000000001.seg.png": noise_image(1), "a/IMG_2024.05.10.jpg": noise_image(3, "JPEG")}
  read = read_one(tmp_path, tar_of({**members, "a/IMG_2024.05.10.cls": b"1"}))
  (fault,) = [item for item in read.values() if isinstance(item, Quarantined)]
  assert (fault.key, fault.reason) == ("0.tar/a/IMG_2024.05.10.jpg", Reason.BAD_LABEL)
  assert fault.detail.startswith("its name has a dot before its ending")
  assert len(read) == 3


def test_labels_are_texts_or_classes_and_names_end_at_the_first_dot(tmp_path):
  members = {
    "a/1.txt": b" tabby cat\n",
    "a/1.JPG": noise_image(1, "JPEG"),
    "a/2.png": noise_image(2),
    "a/2.txt": b"a caption",
    "a/2.cls": b"007",
    "a/3.seg.png": noise_image(3),  # not `png`
    "a/3.gif": noise_image(3, "GIF"),
    "a/3.cls": b"dog",
    "b.d/4.bmp": noise_image(4, "BMP"),
    "b.d/4.cls": b"10",
    "b.d/5.jpg": noise_image(5, "JPEG"),
    "b.d/5.txt": "Ka\u0308fer".encode(),  # two characters for one
    "b.d/6.jpg": noise_image(6, "JPEG"),
    "b.d/6.txt": "K\xe4fer ".encode(),
  }
  read = read_one(tmp_path, tar_of(members))
  assert {key: item.label for key, item in read.items()} == {
    "0.tar/a/1.JPG": "tabby cat",
    "0.tar/a/2.png": "7",
    "0.tar/a/3.gif": "dog",
    "0.tar/b.d/4.bmp": "10",
    "0.tar/b.d/5.jpg": "K\xe4fer",
    "0.tar/b.d/6.jpg": "K\xe4fer",
  }
  source = find_source(str(tmp_path))
  assert source.labels == ["7", "10", "K\xe4fer", "dog", "tabby cat"]
  assert [note for note in source.notes() if "are one label" in note]


def test_bad_members_are_quarantined(tmp_path):
  members = {
    "good.jpg": noise_image(1, "JPEG"),
    "good.cls": b"1",
    "alone.jpg": b"jpg",
    "blank.jpg": b"jpg",
    "blank.txt": b"  ",
    "lines.jpg": b"jpg",
    "lines.txt": b"two\nlines",
    "latin.jpg": b"jpg",
    "latin.cls": "Bär".encode("latin-1"),
    "tiff.tiff": b"II*",
    "tiff.cls": b"1",
    "empty.jpg": b"",  # for the work to say
    "empty.cls": b"1",
  }
  read = read_one(tmp_path, tar_of(members))
  bad = {key: item.reason for key, item in read.items() if isinstance(item, Quarantined)}
  assert bad == {
    **{f"0.tar/{name}.jpg": Reason.BAD_LABEL for name in ("alone", "blank", "lines", "latin")},
    "0.tar/tiff.cls": Reason.NOT_AN_IMAGE,
  }
  assert {key for key in read if key not in bad} == {"0.tar/good.jpg", "0.tar/empty.jpg"}


@pytest.mark.parametrize("order", ["cls first", "jpg first"])
def test_a_tar_that_is_cut_off(tmp_path, order):
  names = ["cls", "jpg"] if order == "cls first" else ["jpg", "cls"]
  contents = {"cls": b"1", "jpg": bytes(2000)}
  tar = tar_of({f"{number}.{kind}": contents[kind] for number in range(3) for kind in names})
  for size in range(len(tar) // 2, len(tar), 256):
    read = read_one(tmp_path, tar[:size])
    whole = {key for key, item in read.items() if isinstance(item, Image)}
    reasons = {item.reason for item in read.values() if isinstance(item, Quarantined)}
    assert whole <= {f"0.tar/{number}.jpg" for number in range(3)}
    if whole != {f"0.tar/{number}.jpg" for number in range(3)}:
      assert Reason.TRUNCATED in reasons
      assert "0.tar" in read  # the rest, of which nothing is known
  assert set(read_one(tmp_path, tar)) == {f"0.tar/{number}.jpg" for number in range(3)}


def test_a_damaged_header_hides_no_image(tmp_path):
  tar = bytearray(tar_of(samples(0, 5)))
  at = tar.index(b"000000003.jpg")
  tar[at : at + 4] = b"\xff\xff\xff\xff"
  read = read_one(tmp_path, bytes(tar))
  assert [key for key, item in read.items() if isinstance(item, Image)] == [f"0.tar/{n:09}.jpg" for n in range(3)]
  assert read["0.tar"].reason == Reason.TRUNCATED
  assert f"at byte {at}" in read["0.tar"].detail


@pytest.mark.parametrize(
  ("tar", "sentence"),
  [
    (b"", "cannot be read as a tar .empty file"),
    (b"no tar" * 999, "cannot be read as a tar"),
    (tar_of({"1.jpg": b"x", "1.cls": b"1"})[:1024] + tar_of({"1.jpg": b"y"}), "contains 1.jpg twice"),
  ],
)
def test_what_is_no_tar_is_an_error(tmp_path, tar, sentence):
  with pytest.raises(InputError, match=sentence):
    read_one(tmp_path, tar)


@pytest.mark.parametrize(
  ("name", "pack", "how"),
  [
    ("0.tar.gz", gzip.compress, "gzip -dc {} > {}/0.tar"),
    ("0.tgz", gzip.compress, "gzip -dc {} > {}/0.tar"),
    ("0.TAR", gzip.compress, "gzip -dc {} > {}/0-plain.tar"),
    ("0.tar.bz2", bz2.compress, "bzip2 -dc {} > {}/0.tar"),
    ("0.txz", lzma.compress, "xz -dc {} > {}/0.tar"),
    ("0.tar.zst", lambda tar: b"\x28\xb5\x2f\xfd" + tar, "zstd -dc {} > {}/0.tar"),
  ],
)
def test_a_compressed_tar_is_an_error_with_a_command_that_can_be_typed(tmp_path, name, pack, how):
  write(tmp_path, {name: pack(tar_of(samples(0, 5)))})
  for path in (tmp_path, tmp_path / name):
    with pytest.raises(InputError, match="is compressed and cannot be read in parts: decompress it") as error:
      find_source(str(path))
    assert f"`{how.format(tmp_path / name, tmp_path)}`" in str(error.value)


def test_a_tar_may_have_any_name_that_tars_have(tmp_path):
  for name in ("0.TAR", "0.tar.gz"):  # which is not compressed
    assert len(find_source(str(write(tmp_path / name, {name: tar_of(samples(0, 5))}))).labels) == 5


def test_rubbish_of_a_tar_is_that_of_folders(tmp_path):
  rubbish = ("__MACOSX/._0.jpg", "__MACOSX/0.jpg", "__MACOSX/0.cls", "@eaDir/1.jpg", "PaxHeaders.7/0.jpg", "._0.jpg")
  members = {
    **dict.fromkeys(rubbish, b"x"),
    **samples(0, 2),
    "README.txt": b"two\nlines",
    "./9.cls": b"1",
    "./9.jpg": b"x",
  }
  assert list(read_one(tmp_path, tar_of(members))) == [f"0.tar/{n}.jpg" for n in ("000000000", "000000001", "./9")]


def test_links_of_a_tar_are_followed(tmp_path):
  file = io.BytesIO()
  links = [
    ("a/2.jpg", tarfile.SYMTYPE, "../000000000.jpg"),
    ("a/2.cls", tarfile.LNKTYPE, "000000001.cls"),
    ("3.jpg", tarfile.SYMTYPE, "a/2.jpg"),
    ("3.cls", tarfile.SYMTYPE, "a/2.cls"),
    ("4.jpg", tarfile.SYMTYPE, "/elsewhere.jpg"),
    ("5.jpg", tarfile.SYMTYPE, "5.jpg"),
  ]
  with tarfile.open(fileobj=file, mode="w") as tar:
    for name, kind, target in links:  # before what they lead to
      member = tarfile.TarInfo(name)
      member.type, member.linkname = kind, target
      tar.addfile(member)
    for name, data in samples(0, 2).items():
      member = tarfile.TarInfo(name)
      member.size = len(data)
      tar.addfile(member, io.BytesIO(data))
  read = read_one(tmp_path, file.getvalue())
  first = noise_image(0, "JPEG")
  for name in ("a/2", "3"):
    assert read[f"0.tar/{name}.jpg"] == Image(f"0.tar/{name}.jpg", "1", first)
  bad = {key: item.reason for key, item in read.items() if isinstance(item, Quarantined)}
  assert bad == dict.fromkeys(("0.tar/4.jpg", "0.tar/5.jpg"), Reason.UNREADABLE)


def test_numbers_of_classes_are_numbers_and_that_is_told(tmp_path):
  members = {
    **samples(0, 2),
    "2.jpg": b"x",
    "2.cls": b"\xef\xbb\xbf007\r\n",
    "3.jpg": b"x",
    "3.txt": b"\xef\xbb\xbf007",
  }
  source = find_source(str(write(tmp_path, {"0.tar": tar_of(members), "beside.jpg": b"x"})))
  assert source.labels == ["0", "1", "007", "7"]
  assert list(source.notes()) == [
    "numbers in .cls files are class indices: of '007' the label is '7' (1 such)",
    "left out: images beside the tars (1, such as beside.jpg)",
  ]


def test_a_tar_behind_another_one_is_told(tmp_path):
  read = read_one(tmp_path, tar_of(samples(0, 2)) + tar_of(samples(2, 2)))
  assert len(read) == 3
  assert read["0.tar"].detail.endswith("another one follows, which is not read: give each by itself")


def test_a_tar_beside_class_folders_is_none_of_the_data_and_told(tmp_path):
  write(tmp_path, {"a/1.jpg": b"1", "b/1.jpg": b"1", "all.tar": tar_of(samples(0, 2))})
  source = find_source(str(tmp_path))
  assert source.labels == ["a", "b"]
  assert list(source.notes()) == [f"left out: tars beside the class folders (1, such as {tmp_path}/all.tar)"]


def test_images_without_labels_are_an_error(tmp_path):
  with pytest.raises(InputError, match="has no images with a label: give some of each class"):
    find_source(str(write(tmp_path, {"0.tar": tar_of({"1.jpg": b"x"})})), min_classes=1)


def test_a_cut_that_leaves_too_few_labels_is_why(tmp_path):
  with pytest.raises(InputError, match=r"0.tar: the tar is .*cut off.* and too few labels are left: get the tar again"):
    read_one(tmp_path, tar_of(samples(0, 2))[:700])


def test_one_class_is_an_error(tmp_path):
  path = write(tmp_path, {"0.tar": tar_of({"1.jpg": b"x", "1.cls": b"1"})})
  with pytest.raises(InputError, match="has only one class, '1': a classifier needs"):
    find_source(str(path))


def test_a_tar_that_shrinks_while_the_job_runs(folder, tmp_path, collect):
  path = write(tmp_path, {"0.tar": (folder / "00000.tar").read_bytes()}) / "0.tar"
  source = find_source(str(path))
  (shard,) = collect(source.plan((ALL,), None))
  path.write_bytes(path.read_bytes()[:2000])
  with pytest.raises(InputError, match="byte 2000: the file ends here"):
    list(shard.read_images(source.labels))
