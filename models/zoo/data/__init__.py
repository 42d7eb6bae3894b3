"""What the reference models learn from, where it is generated: by seed, with numpy alone."""
