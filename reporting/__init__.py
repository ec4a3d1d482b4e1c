"""Reports, tables and gate verdicts for people and schedulers.

No Beam, no TensorFlow.
"""
