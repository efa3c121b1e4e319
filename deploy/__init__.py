"""Bundles on their way to a station. So far: verification; builds, signing and push come here."""

import os

# Before anything imports it: ONNX Runtime would else tell its maker what runs where.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
