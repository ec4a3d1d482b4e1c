"""What people read after a job. No Beam, no TensorFlow."""
