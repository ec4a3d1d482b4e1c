"""What a command was asked for, parsed and checked."""
