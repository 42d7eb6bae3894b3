"""Bundles behind Ray Serve: the engine, the decoders and the answers of the server, placed and multiplied by Ray.

Of Ray the placing, the autoscaling and the HTTP server are used. What is read and what is answered is the same code as
behind TorchServe, so the bodies are the same bytes. See docs/ray.md.
"""
