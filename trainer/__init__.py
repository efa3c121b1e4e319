"""Images → encoder, banks, head, raw material of thresholds → bundle. Never runs on the line."""
