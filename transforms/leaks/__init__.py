"""The same image in two splits or under two labels."""
