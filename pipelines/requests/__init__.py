"""Requests of commands: parsed and checked."""
