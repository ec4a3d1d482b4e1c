"""A trunk prepared for TensorFlow or OpenVINO, in float32, bfloat16 or int8."""
