"""One script a peer. Each runs in that peer's own virtual environment, so none imports anything of this project."""
