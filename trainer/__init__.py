"""The head: data, model, training, export; and the recipe of the bundled trunk. No Beam."""
