"""The station: a camera's frame becomes a recorded verdict. Nothing here trains or compiles."""
