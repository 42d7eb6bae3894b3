"""The page that a browser shows of a server: static files, nothing from outside."""
