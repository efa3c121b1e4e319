"""Labels and scores → thresholds and banks. So far thresholds; labels and updates come here."""
