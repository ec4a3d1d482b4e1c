"""`predict`: files and folders, three formats, and bad images that cost the others nothing."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf
from sklearn.datasets import load_sample_images

from beam_retrain.pipelines import predict
from beam_retrain.pipelines.cli import main
from beam_retrain.pipelines.requests.predict import PredictRequest
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.quarantine import MAX_FILE_BYTES
from beam_retrain.transforms.core.run.exit_codes import exit_code_for_images
from tests.helpers import ROOT, encode


@pytest.fixture
def mixed(tmp_path, small_images) -> Path:
  """40 good images (more than one batch), an empty one, texts, a cut one, and rubbish that nobody looks at."""
  folder = tmp_path / "mixed"
  shutil.copytree(small_images / "white", folder / "below")
  (folder / "empty.jpg").write_bytes(b"")
  (folder / "text.PNG").write_text("not an image")
  (folder / "cut.jpg").write_bytes((small_images / "black" / "0.jpg").read_bytes()[:-300])
  (folder / "notes.txt").write_text("not even named like one")
  (folder / "README.txt").write_text("of the data set")
  (folder / ".hidden.jpg").write_bytes(b"")
  return folder


def run(capsys, *argv: str) -> tuple[int, str, str]:
  code = predict.run(list(argv))
  captured = capsys.readouterr()
  return code, captured.out, captured.err


def test_label_and_confidence_are_the_served_ones(trained_model, small_images, capsys):
  paths = [str(small_images / label / name) for label, name in [("white", "0.jpg"), ("black", "1.png")]]
  code, out, _ = run(capsys, f"--model={trained_model}", *paths)
  assert code == 0
  served = tf.saved_model.load(str(trained_model / "saved_model")).signatures["serving_default"](
    key=tf.constant(paths), image_bytes=tf.constant([Path(path).read_bytes() for path in paths])
  )
  assert out.splitlines() == [
    f"{path}: {label.decode()} {confidence:.2%}"
    for path, label, confidence in zip(paths, served["label"].numpy(), served["confidence"].numpy(), strict=True)
  ]
  assert [line.split(": ")[1].split()[0] for line in out.splitlines()] == ["white", "black"]


def test_few_images_are_not_filled_up_to_a_batch(trained_model, small_images):
  paths = sorted(map(str, (small_images / "white").iterdir()))[:3]
  job = predict.plan(PredictRequest.parse([f"--model={trained_model}", *paths]))
  rows = []
  infer = job.model.infer
  counting = dataclasses.replace(job.model, infer=lambda pixels: rows.append(len(pixels)) or infer(pixels))
  assert len(list(predict.predict(job._replace(model=counting), [], []))) == 3
  assert rows == [3]


def test_bad_images_are_named_and_the_others_predicted(trained_model, mixed, capsys):
  code, out, err = run(capsys, f"--model={trained_model}", str(mixed))
  assert code == 3
  assert len(out.splitlines()) == 40
  lines = err.splitlines()
  assert [line.split(": ")[:2] for line in lines[:-1]] == [
    [str(mixed / "cut.jpg"), "TRUNCATED"],
    [str(mixed / "empty.jpg"), "EMPTY"],
    [str(mixed / "notes.txt"), "NOT_AN_IMAGE"],
    [str(mixed / "text.PNG"), "NOT_AN_IMAGE"],
  ]
  assert lines[-1].startswith("beam-retrain: 4 of 44 images could not be used; see above; to accept this, give ")
  assert lines[-1].endswith(" --max_bad_fraction=0.091.")
  assert run(capsys, f"--model={trained_model}", str(mixed), "--max_bad_fraction=0.1")[:2] == (0, out)


@pytest.mark.parametrize(("bad", "images", "flag"), [(1, 2, "0.5"), (29, 50, "0.58"), (1, 401, "0.003"), (1, 1, "1")])
def test_the_flag_that_is_printed_accepts_the_bad_images(bad, images, flag, capsys):
  assert exit_code_for_images(bad, images, 0) == 3
  assert capsys.readouterr().err.endswith(f" give --max_bad_fraction={flag}.\n")
  assert exit_code_for_images(bad, images, float(flag)) == 0


def test_a_run_that_ended_before_its_training_says_so(tmp_path, small_images, capsys):
  photos = shutil.copytree(small_images, tmp_path / "photos")
  next(photos.rglob("*.png")).write_bytes(b"")
  assert main(["run", f"--data={photos}", f"--output={tmp_path / 'out'}"]) == 3
  capsys.readouterr()
  assert main(["predict", f"--model={tmp_path / 'out'}", str(photos)]) == 2
  said = capsys.readouterr().err
  assert f"{tmp_path / 'out' / 'bottlenecks'} is not finished: 1 of " in said
  assert "or the `beam-retrain run`, that writes it." in said


def test_photos_by_the_bundled_trunk_are_told_and_digits_are_not(quick_start, tmp_path, capsys):
  digits = quick_start.folder / "output" / "digits"
  code, _, err = run(capsys, f"--model={digits}", str(digits / "convert" / "testing" / "7"))
  assert (code, err) == (0, "")
  (tmp_path / "photo.jpg").write_bytes(encode(load_sample_images().images[0], "JPEG"))
  code, _, err = run(capsys, f"--model={digits}", str(tmp_path))
  advice = "the model's bundled trunk knows only glyphs: for photos, train with --trunk inception_v3\n"
  assert (code, err) == (0, advice)


def test_csv_and_json_hold_the_top_labels(trained_model, small_images, capsys):
  argv = [f"--model={trained_model}", "--top=2", str(small_images / "white" / "0.jpg")]
  _, as_csv, _ = run(capsys, *argv, "--format=csv")
  rows = list(csv.DictReader(io.StringIO(as_csv)))
  _, as_json, _ = run(capsys, *argv, "--format=json")
  (entry,) = [json.loads(line) for line in as_json.splitlines()]
  assert [(row["file_name"], row["rank"]) for row in rows] == [(argv[-1], "1"), (argv[-1], "2")]
  assert [row["label"] for row in rows] == [one["label"] for one in entry["top"]]
  assert [float(row["confidence"]) for row in rows] == pytest.approx([one["confidence"] for one in entry["top"]])
  assert (entry["file_name"], entry["label"]) == (argv[-1], "white")
  assert 0 <= entry["top"][1]["confidence"] <= entry["confidence"] <= 1


def test_a_formula_in_a_file_name_stays_text(trained_model, small_images, tmp_path, capsys, monkeypatch):
  shutil.copy(small_images / "grey" / "0.jpg", tmp_path / "=1+1.jpg")
  monkeypatch.chdir(tmp_path)
  _, out, _ = run(capsys, f"--model={trained_model}", "=1+1.jpg", "--format=csv")
  assert out.splitlines()[1].startswith("'=1+1.jpg,1,")


def test_each_image_once_and_folders_in_order(small_images):
  first = str(small_images / "white" / "3.gif")
  found = predict.find_images([first, str(small_images), first])
  assert found[0] == first
  assert found[1:] == sorted(set(map(str, small_images.glob("*/*"))) - {first})


def test_what_cannot_be_used_is_said(trained_model, tmp_path, capsys):
  with pytest.raises(InputError, match=r"nowhere\.jpg does not exist"):
    run(capsys, f"--model={trained_model}", str(tmp_path / "nowhere.jpg"))
  with pytest.raises(InputError, match="has no images: give an image or a folder of images"):
    run(capsys, f"--model={trained_model}", str(tmp_path))
  with pytest.raises(InputError, match="give the folder that `beam-retrain train` wrote"):
    run(capsys, f"--model={tmp_path}", str(tmp_path))


def test_a_pipe_and_a_huge_file_are_not_read(trained_model, tmp_path, capsys):
  os.mkfifo(tmp_path / "pipe.png")
  with (tmp_path / "huge.png").open("wb") as file:
    file.truncate(MAX_FILE_BYTES + 1)
  code, out, err = run(capsys, f"--model={trained_model}", str(tmp_path))
  assert (code, out) == (3, "")
  assert err.splitlines()[:2] == [
    f"{tmp_path}/huge.png: TOO_LARGE: more than the {MAX_FILE_BYTES} bytes allowed of a file",
    f"{tmp_path}/pipe.png: UNREADABLE: is not a regular file",
  ]


def test_as_a_process_without_beam(trained_model, small_images):
  script = (
    "import sys; from beam_retrain.pipelines import predict; code = predict.run(sys.argv[1:]);"
    "print('apache_beam' in sys.modules, code)"
  )
  image = str(small_images / "black" / "2.bmp")
  ran = subprocess.run(
    [sys.executable, "-c", script, f"--model={trained_model}", image],
    cwd=ROOT,
    check=True,
    capture_output=True,
    text=True,
  )
  assert ran.stdout.splitlines()[-1] == "False 0"
  assert ran.stdout.splitlines()[0].startswith(f"{image}: black ")


def test_a_reader_that_leaves_early_is_no_fault(trained_model, small_images):
  command = f"{sys.executable} -m beam_retrain.pipelines.cli predict --model {trained_model} {small_images} | head -1"
  shown = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=ROOT)
  assert shown.stdout.count("\n") == 1
  assert "Broken pipe" not in shown.stderr
  assert "the job failed" not in shown.stderr
