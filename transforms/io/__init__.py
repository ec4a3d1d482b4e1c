"""Files, local and in object stores; caches."""
