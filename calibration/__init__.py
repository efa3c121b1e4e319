"""Labels and scores → thresholds and banks. So far: thresholds; labels and bank updates come here."""
