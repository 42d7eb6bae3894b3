"""What a multi-task model is, and how one is trained."""
