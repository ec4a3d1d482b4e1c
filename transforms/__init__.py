"""What Beam workers execute: PTransforms here, plain functions in core."""
