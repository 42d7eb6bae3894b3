"""The side server: health, metadata, metrics, documents, the console and the control of one running server."""
