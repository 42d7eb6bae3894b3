"""A trained model becomes a verified bundle."""
