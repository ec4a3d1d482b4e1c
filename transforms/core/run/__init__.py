"""What a run says of itself: info.json, progress lines, costs; running a command line."""
