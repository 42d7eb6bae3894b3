"""Bundles baked into a container image: the build context, and the tool that builds it."""
