"""Writing trained models: SavedModel, frozen graph, TFLite."""
