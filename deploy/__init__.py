"""Bundles on their way to a station. So far: verification; builds, signing and push come here."""
