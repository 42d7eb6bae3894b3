"""Reference models, each one file: data, network, recipe."""
