"""Builds the image: run by the Dockerfile's stages, with the standard library alone. Nothing of it is in the result."""
