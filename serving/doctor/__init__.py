"""What `polyhead doctor` looks at: one module a place to look, each giving findings; nothing here starts a server."""
