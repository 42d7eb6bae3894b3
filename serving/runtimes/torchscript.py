"""TorchScript graphs. PyTorch deprecates the format; all that serving knows of it stands here."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping

import torch

from polyhead.serving.errors import RuntimeUnavailable
from polyhead.serving.manifest import Graph
from polyhead.serving.runtimes.tensors import TensorRuntime, exact

__all__ = ["load"]


def load(graph: Graph, files: Mapping[str, bytes], device: str, threads: int) -> TensorRuntime:
    """Load a module; see `base.load`."""
    exact(threads)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*torch.jit.*")
        # Shapes are dynamic: specialise once, then keep one general kernel.
        torch.jit.set_fusion_strategy([("DYNAMIC", 1)])
        try:
            module = torch.jit.load(io.BytesIO(files[graph.file]), map_location=device)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise RuntimeUnavailable(f"TorchScript refuses {graph.file}: {str(error).splitlines()[0]}") from None
        return TensorRuntime("torchscript", torch.jit.optimize_for_inference(module.eval()), graph, device)
