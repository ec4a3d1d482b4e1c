"""What an evaluation's figures are of, compared with the exported model."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

from beam_retrain.pipelines.models.sample import check_agreement, variant_entries
from beam_retrain.pipelines.models.trained import Model, ModelTrunk
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.metrics.predictions import read_predictions
from beam_retrain.transforms.core.models.agreement import Agreement, Sampled, generated_images
from beam_retrain.transforms.core.models.head import HEAD_FILE
from beam_retrain.transforms.core.models.inference import load_float32, load_model
from beam_retrain.transforms.core.records.csv_format import unescape_cell
from beam_retrain.transforms.core.records.schema import Image
from beam_retrain.transforms.core.runtimes.variant import Variant
from beam_retrain.transforms.io import files
from beam_retrain.transforms.io.transfer import download


@dataclasses.dataclass(frozen=True)
class ModelPath:
  """What computes the figures of a model."""

  model: Model
  trunk: ModelTrunk | None  # None if the input is stored bottlenecks
  with_head: bool  # whether `head.npz` gives the scores, not the exported model

  @property
  def _variant(self) -> Variant:
    return self.trunk.serving.variant if self.trunk else self.model.info.trunk.variant

  def __str__(self) -> str:
    if self.trunk is None:
      head = HEAD_FILE if self.with_head else "the exported model's head"
      return f"the stored bottlenecks, in {self._variant}, with {head}"
    if self.trunk.serving.is_prepared:
      path = f"the model's prepared trunk in {self._variant} with {HEAD_FILE}"
    elif self.with_head:
      path = f"the exported model's trunk in {self._variant} with {HEAD_FILE}"
    else:
      path = f"the exported model in {self._variant}"
    return ", ".join(filter(None, [path, self.trunk.serving.why]))

  def check(self, sample: Sequence[Image], threads: int, data_set: str) -> Sampled | None:
    """Compares it with the exported model; None if it is that.

    Without a usable image, as with stored bottlenecks, generated ones are compared. For `data_set`, see
    `check_agreement`. Raises InputError if they disagree beyond the bound of the precision.
    """
    if not self.with_head:
      return None
    trunk = self.trunk or ModelTrunk(self.model)
    exported = functools.partial(load_float32, download(self.model.saved_model), threads)
    own = functools.partial(load_model, download(self.model.trunk), threads) if trunk.serving.is_prepared else exported
    contents = [self.model.fingerprint, trunk.fingerprint]
    precision = self._variant.precision
    for images, of in ((sample, data_set), (generated_images(), "")):
      if images and (sampled := check_agreement(contents, own, exported, images, self.model.head, of, precision)):
        self._require(sampled.agreement)
        return sampled
    return None

  def compare(self, sampled: Sampled, predictions: str) -> Agreement:
    """Compares a `predictions.csv` with the exported model's answers; raises as `check`."""
    rows = read_predictions(files.read_lines(predictions), predictions)
    answers = ((row.sha256, unescape_cell(row.predicted)) for row in rows)
    agreement = sampled.compare(self.model.labels, answers)
    self._require(agreement)
    return agreement

  def _require(self, agreement: Agreement) -> None:
    if fault := agreement.fault(self._variant.precision):
      is_prepared = self.trunk and self.trunk.serving.is_prepared
      remedy = ", or add --precision float32 to evaluate the exported model itself" if is_prepared else ""
      raise InputError(
        f"the model in {self.model.path} cannot be judged by {self}, as its exported model answers otherwise: {fault}:"
        f" train it again{remedy}."
      )

  def to_info(self, agreement: Agreement | None) -> Mapping[str, object]:
    """Returns its entries in `metrics.json`."""
    why = self.trunk.serving.why if self.trunk else ""
    return {**variant_entries(self._variant, why, agreement), "figures_of": str(self)}
