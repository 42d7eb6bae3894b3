"""Wire formats, one a module: bytes to rows, answers to bytes."""
