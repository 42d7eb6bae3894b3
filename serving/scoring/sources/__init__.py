"""What rows are read from: one module a format."""
