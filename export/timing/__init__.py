"""Every graph of a bundle in every runtime, timed on this machine beside the eager network, each in its own process."""
