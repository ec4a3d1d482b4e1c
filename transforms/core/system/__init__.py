"""The machine: processors, memory, libraries."""
