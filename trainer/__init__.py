"""The head: data, model, training, export. No Beam."""
