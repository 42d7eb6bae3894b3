"""Polyhead inside TorchServe 0.12: handler, configuration, launcher."""
