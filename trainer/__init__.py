"""Images → encoder, banks, head, raw material of thresholds → bundle. Never runs on the line."""

import os

# Before anything imports it: ONNX Runtime would else tell its maker what runs where.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
