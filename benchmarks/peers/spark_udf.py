"""Spark's `predict_batch_udf`, made for this: a Python worker for each core keeps the compiled network, OpenVINO's."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyspark
from pyspark.ml.functions import predict_batch_udf
from pyspark.sql import SparkSession
from pyspark.sql.types import ArrayType, DoubleType, FloatType, LongType, StructField, StructType

from benchmarks.peers.protocol import hand_back, read_task

_PARTITIONS_PER_WORKER = 4
_RESULT = StructType(
  [
    StructField("vector", ArrayType(FloatType())),
    StructField("worker", LongType()),
    StructField("end", DoubleType()),
  ]
)


def make_predict(network: Path, precision: str, batch_size: int) -> Callable[[], Callable]:
  def load() -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    from benchmarks.peers.images import decode_batch
    from benchmarks.peers.openvino_network import compile_network

    compiled = compile_network(network, precision, batch_size, threads=1)

    def predict(content: np.ndarray) -> dict[str, np.ndarray]:
      count = len(content)
      vectors = compiled(decode_batch([bytes(data) for data in content], batch_size))[0][:count]
      return {
        "vector": vectors,
        "worker": np.full(count, os.getpid()),
        "end": np.full(count, time.monotonic()),
      }

    return predict

  return load


def main() -> None:
  task = read_task(("bfloat16", "float32", "int8"))
  os.environ["PYSPARK_PYTHON"] = sys.executable
  spark = (
    SparkSession.builder.master(f"local[{task.threads}]")
    .config("spark.driver.memory", "2g")
    .config("spark.ui.enabled", "false")
    .config("spark.ui.showConsoleProgress", "false")
    .config("spark.sql.execution.arrow.pyspark.enabled", "true")
    # A batch of the network at a time: what is not a multiple of it would be padded.
    .config("spark.sql.execution.arrow.maxRecordsPerBatch", str(task.batch_size))
    # Files are listed here, not by a job of a task for each.
    .config("spark.sql.sources.parallelPartitionDiscovery.threshold", str(len(task.images)))
    .getOrCreate()
  )
  spark.sparkContext.setLogLevel("ERROR")
  predict = predict_batch_udf(
    make_predict(task.network.absolute(), task.precision, task.batch_size),
    return_type=_RESULT,
    batch_size=task.batch_size,
  )
  # Spread evenly: by itself Spark packs small files into partitions by their size.
  read = spark.read.format("binaryFile").load([os.path.abspath(path) for path in task.images])
  spread = read.select("path", "content").repartition(_PARTITIONS_PER_WORKER * task.threads)
  rows = spread.select("path", predict("content").alias("out")).select("path", "out.*").collect()
  rows.sort(key=lambda row: row.path)
  batches: dict[tuple[int, float], int] = {}
  for row in rows:
    batches[row.worker, row.end] = batches.get((row.worker, row.end), 0) + 1
  ends = [(str(worker), end, count) for (worker, end), count in sorted(batches.items(), key=lambda item: item[0][1])]
  hand_back(
    task,
    np.array([row.vector for row in rows], np.float32),
    ends,
    {"pyspark": pyspark.__version__, "workers": task.threads, "engine": "OpenVINO"},
  )
  spark.stop()


if __name__ == "__main__":
  main()
