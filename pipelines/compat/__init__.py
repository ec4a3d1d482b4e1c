"""The command lines of retrain.py and label_imageV3.py: one layer, which nothing else needs."""
