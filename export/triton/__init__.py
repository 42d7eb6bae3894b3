"""A bundle in the form of NVIDIA Triton: a model repository for its onnxruntime backend."""
