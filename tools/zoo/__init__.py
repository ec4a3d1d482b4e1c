"""The zoo: every variant of an image that people have, through every door of the product."""
