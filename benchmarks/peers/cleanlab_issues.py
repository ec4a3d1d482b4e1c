"""cleanlab's label issues of given out-of-fold scores: `python cleanlab_issues.py SCORES.npz ISSUES.json`."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores

RULES = ("prune_by_noise_rate", "confident_learning", "low_self_confidence")


def main() -> None:
  scores, output = sys.argv[1:]
  with np.load(scores) as arrays:
    labels, probabilities = arrays["labels"], arrays["scores"]
  found = {}
  for rule in RULES:
    began = time.process_time()
    issues = find_label_issues(labels, probabilities, filter_by=rule, n_jobs=1)
    found[rule] = {"rows": np.flatnonzero(issues).tolist(), "seconds": time.process_time() - began}
  quality = get_label_quality_scores(labels, probabilities, method="self_confidence")
  with open(output, "w") as file:
    json.dump({"rules": found, "quality": quality.tolist()}, file)


if __name__ == "__main__":
  main()
