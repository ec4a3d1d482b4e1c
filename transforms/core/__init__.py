"""Plain functions and records; imports no Beam."""

import os

# TensorFlow reads it when it is imported. On processors without AVX-512 it would leave its products to Eigen, which
# adds up in another order for another batch, and for another place in it: a image's numbers are to be its own.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
