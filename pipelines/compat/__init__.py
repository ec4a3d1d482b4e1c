"""The command lines of retrain.py and label_imageV3.py, a separable layer."""
