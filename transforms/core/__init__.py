"""Plain functions and records; imports no Beam."""
