"""The labels that the names of folders stand for."""

import pytest

from beam_retrain.transforms.compat.frozen_graph import ActualLabels
from beam_retrain.transforms.sources.folders import label_of_folder


@pytest.mark.parametrize(
  ("folder", "label"), [("7", "7"), ("Red Roses", "red roses"), ("rock_&_roll!", "rock roll "), ("Ü", " "), (".", " ")]
)
def test_a_folders_name_becomes_a_label_as_in_2018(folder, label):
  assert label_of_folder(folder) == label


def test_the_label_that_a_folder_stands_for():
  actual = ActualLabels(["Rose-Bush", "rose bush", "daisy", "=cmd", "red"])
  found = {
    "rose bush": "rose bush",  # spelled just so: before any that is only normalised to it
    "ROSE bush": "Rose-Bush",
    "Daisy": "daisy",
    "=cmd": "=cmd",
    "Red!": "red",
    "tulips": None,
  }
  assert {folder: actual.find(folder) for folder in found} == found
