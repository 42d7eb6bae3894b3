"""The front door: nginx before TorchServe, the one thing that the network reaches."""
