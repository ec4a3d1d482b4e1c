"""One bounded parser per image format, without Pillow and TensorFlow."""
