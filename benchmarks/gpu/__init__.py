"""What serving adds to the bare replay of a CUDA graph."""
