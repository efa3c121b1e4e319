"""Programs that show how the product is used."""
