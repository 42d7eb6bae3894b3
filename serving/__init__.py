"""A bundle answers: over HTTP, and from files."""
