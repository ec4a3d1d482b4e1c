"""The recipe of the trunk that ships with the project: fonts and drawn pen strokes in, weights out."""
