"""The package: what users install, and what Beam workers get (`--setup_file=./setup.py`)."""

from __future__ import annotations

import pathlib
import shutil

import setuptools
from setuptools.command.build_py import build_py

_AWS = ["boto3>=1.40,<2"]
_HEIC = ["pillow-heif>=1.1,<2"]
_FAST = ["openvino>=2026.4,<2027", "nncf>=3.4,<4", "simplejpeg>=1.9,<2"]
_SERVE = ["starlette>=1.10,<2", "uvicorn>=0.54,<0.60"]
_PYTHONS = ("3.11", "3.12", "3.13")


class _BuildAnew(build_py):
  """Packs what is there now, and nothing that an earlier build has left."""

  def run(self) -> None:
    if not self.editable_mode:
      shutil.rmtree(self.build_lib, ignore_errors=True)
    super().run()


setuptools.setup(
  cmdclass={"build_py": _BuildAnew},
  name="beam-retrain",
  version="0.5.0.dev0",
  description="Image transfer learning as a data-parallel Apache Beam job",
  long_description=pathlib.Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
  long_description_content_type="text/markdown",
  author="the beam-retrain authors",
  license="Apache-2.0",
  license_files=["LICENSE"],
  keywords=["transfer learning", "image classification", "apache beam", "tensorflow", "inception v3", "mnist"],
  classifiers=[
    "Development Status :: 4 - Beta",
    "Environment :: Console",
    "Intended Audience :: Developers",
    "Intended Audience :: Science/Research",
    "Operating System :: POSIX :: Linux",
    *(f"Programming Language :: Python :: {python}" for python in ("3", *_PYTHONS)),
    "Topic :: Scientific/Engineering :: Artificial Intelligence",
    "Topic :: Scientific/Engineering :: Image Recognition",
    "Typing :: Typed",
  ],
  # `make test-pythons` runs the tests on each.
  python_requires=">=3.11,<3.14",
  # The rooms are linked below beam_retrain/; what is packed are files, not links.
  packages=setuptools.find_packages(include=["beam_retrain*"]),
  package_data={
    "beam_retrain": ["py.typed"],
    "beam_retrain.transforms.core": ["bundled_trunk/*"],
    "beam_retrain.pipelines.serve": ["pages/*"],
    "beam_retrain.reporting": ["templates/*"],
  },
  install_requires=[
    # tensorflow-transform asks for [gcp] too, so that leaving it out here would save nothing.
    "apache-beam[gcp]>=2.77,<3",
    # Locks of a history of nights, which end with a killed holder.
    "filelock>=4.2,<5",
    # Beam needs one of three CRC-32C libraries for TFRecords, and asks for none.
    "google-crc32c>=1.7,<2",
    # Of the report: templates, and below charts.
    "jinja2>=3.1.6,<4",
    "keras>=3.12,<4",
    "matplotlib>=3.10,<4",
    "numpy>=2.1,<3",
    # Beam 2.77 fails in IPython with pandas 3, and without pandas; its extra [dataframe] has this bound. tfx-bsl, which
    # tensorflow-transform needs, brings pandas anyway, the newest one.
    "pandas>=2.2.3,<2.4",
    "pillow>=12,<13",
    # Parquet files of `export`; Beam asks for it within these bounds.
    "pyarrow>=14.0.1,<26",
    # The bar on a terminal. keras asks for it too, so that it adds nothing, unlike tqdm, which is smaller.
    "rich>=14,<16",
    # The handwritten digits of `--data digits`; heads, components and neighbours of `--label_errors`.
    "scikit-learn>=1.6,<2",
    # Cholesky factors for the head's steps; scikit-learn asks for it anyway.
    "scipy>=1.14,<2",
    # tensorflow-hub imports pkg_resources: later ones warn of it on every start, then no longer have it.
    "setuptools>=65,<80.9",
    "tensorflow>=2.21,<2.22",
    "tensorflow-hub>=0.16.1,<0.17",
    "tensorflow-transform>=1.21,<1.22",
    # Completion in shells; a small package without dependencies. argcomplete would start the command for each tab.
    "shtab>=1.7,<2",
    # One BLAS thread for each block of the head's training, so that cores change no bit.
    "threadpoolctl>=3.5,<4",
  ],
  extras_require={
    # Another engine for the trunk, twice as fast in bfloat16, and what calibrates it for int8; see docs/trunks.md.
    # And TensorFlow's decoder of JPEGs without TensorFlow, which a job with that engine then need not load.
    "fast": _FAST,
    # What Beam reads and writes s3:// with.
    "aws": _AWS,
    # What `convert` reads HEIC with, as telephones write it: Pillow does not, and libheif brings a GPL encoder.
    "heic": _HEIC,
    # What `serve` answers HTTP with: a small framework and its server, no more than h11 and anyio behind them.
    "serve": _SERVE,
    "dev": [
      *_SERVE,
      *_FAST,
      *_AWS,
      *_HEIC,
      # axe, which finds what keeps people with a screen reader or a keyboard out of the report.
      "axe-core-python==0.1.0",
      # Which room may import which.
      "import-linter>=2.17,<3",
      # What Jupyter runs cells in: Beam behaves otherwise there.
      "ipython>=9.10,<10",
      # The schemas of Kubernetes, against which deploy/kubernetes is checked; brings the YAML reader too.
      "kubernetes-validate>=1.37,<2",
      # The pages of `make docs`.
      "mkdocs-material>=9.8,<10",
      # Of mkdocs-material: 13 wants Python 3.11.5, and Debian 12 has 3.11.2.
      "pymdown-extensions<13",
      "mypy>=2.4,<3",
      "pre-commit>=4.7,<5",
      "pytest>=9.2,<10",
      "pytest-xdist>=3.8,<4",
      "ruff>=0.17.6,<0.18",
      # Chromium, in which the report is tried.
      "selenium>=4.41,<5",
    ],
  },
  entry_points={"console_scripts": ["beam-retrain = beam_retrain.pipelines.cli:main"]},
)
