"""The station: a camera's frame becomes a recorded verdict. Nothing here trains or compiles."""

import os

# Before anything imports it: ONNX Runtime would else tell its maker what runs where.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
