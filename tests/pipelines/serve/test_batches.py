import concurrent.futures

import pytest

from beam_retrain.pipelines.predict import choose_serving
from beam_retrain.pipelines.serve.batches import Batches, BusyError, load_sizes
from beam_retrain.transforms.core.models.inference import PLAIN_PIXELS, Inferred
from beam_retrain.transforms.core.records.quarantine import MAX_PIXELS, Quarantined
from beam_retrain.transforms.core.run.output_folder import read_info


@pytest.fixture(scope="module", params=[("auto", "auto"), ("float32", "tensorflow")])  # a prepared trunk, and none
def models(made, request):
  folder = str(made.model)
  return load_sizes(folder, choose_serving(folder, read_info(folder, "train"), *request.param), with_vectors=True)


@pytest.fixture(scope="module")
def images(made):
  return [path.read_bytes() for path in sorted(made.data.rglob("*.png"))[:60]]


def test_each_request_gets_its_own_answers_however_they_are_batched(models, images):
  batches = Batches(models, MAX_PIXELS)
  alone = [batches.submit([image]).result()[0] for image in images]
  parts = [images[:1], images[1:4], [], images[4:41], images[41:]]
  together = [result for future in [batches.submit(part) for part in parts] for result in future.result()]
  batches.close()
  assert [one.image.encoded for one in together] == images
  for one, other in zip(alone, together, strict=True):
    assert isinstance(one, Inferred)
    assert one.outputs["scores"] == pytest.approx(other.outputs["scores"], abs=1e-5)
    assert set(one.outputs) == {"scores", "bottleneck"}


def test_a_bad_image_fails_alone(models, images):
  batches = Batches(models, MAX_PIXELS)
  first, bad, last = batches.submit([images[0], b"no image", images[1]]).result()
  batches.close()
  assert isinstance(first, Inferred)
  assert isinstance(last, Inferred)
  assert isinstance(bad, Quarantined)
  assert bad.reason == "NOT_AN_IMAGE"


def test_a_full_queue_refuses_and_what_it_took_is_answered_even_when_closed(models, images):
  batches = Batches(models, MAX_PIXELS, max_waiting=8)
  taken, refused = [], 0
  for _ in range(100):
    try:
      taken.append(batches.submit(images[:4]))
    except BusyError:
      refused += 1
  batches.close()
  assert refused
  assert [len(future.result(timeout=0)) for future in taken] == [4] * len(taken)
  assert len(taken) + refused == 100


def test_what_a_client_no_longer_wants_is_not_computed(models, images):
  batches = Batches(models, MAX_PIXELS)
  futures = [batches.submit(images[:8]) for _ in range(20)]
  gone = [future for future in futures[10:] if future.cancel()]
  batches.close()
  assert gone
  assert batches.images == 8 * (20 - len(gone))
  with pytest.raises(concurrent.futures.CancelledError):
    gone[0].result()


def test_no_client_waits_for_tensorflow_after_many_images(models, images):
  for model in models.values():
    model.plain[0] = PLAIN_PIXELS
  batches = Batches(models, MAX_PIXELS)
  batches.submit(images[:1]).result()
  batches.close()
  assert models[min(models)].plain[0] < PLAIN_PIXELS
