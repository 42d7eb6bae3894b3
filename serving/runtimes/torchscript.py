"""TorchScript graphs. PyTorch deprecates the format; all that serving knows of it stands here."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from polyhead.serving.errors import RuntimeUnavailable
from polyhead.serving.golden import Array
from polyhead.serving.manifest import Graph

__all__ = ["TorchScriptRuntime", "as_tensor", "load"]


class TorchScriptRuntime:
    """A frozen TorchScript module."""

    name = "torchscript"

    def __init__(self, module: Any, graph: Graph, device: str) -> None:
        self._module = module
        self._positions = {name: index for index, name in enumerate(graph.outputs)}
        self._device = torch.device(device)
        self.device = device

    def run(self, inputs: Sequence[Array], outputs: Sequence[str]) -> list[Array]:
        """One forward pass; see `Runtime.run`."""
        with torch.inference_mode():
            tensors = [as_tensor(array) for array in inputs]
            if self._device.type != "cpu":
                tensors = [tensor.to(self._device) for tensor in tensors]
            results = self._module(*tensors)
            return [results[self._positions[name]].cpu().numpy() for name in outputs]


def as_tensor(array: Array) -> torch.Tensor:
    """A tensor over the array's memory; only a read-only array (a request's own bytes) is copied."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def load(graph: Graph, files: Mapping[str, bytes], device: str, threads: int) -> TorchScriptRuntime:
    """Load a module; see `base.load`."""
    torch.set_num_threads(threads)
    # As in ONNX Runtime's session: TF32 keeps 10 bits of the 23, and would make the two runtimes answer differently.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*torch.jit.*")
        # Shapes are dynamic: specialise once, then keep one general kernel.
        torch.jit.set_fusion_strategy([("DYNAMIC", 1)])
        try:
            module = torch.jit.load(io.BytesIO(files[graph.file]), map_location=device)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise RuntimeUnavailable(f"TorchScript refuses {graph.file}: {str(error).splitlines()[0]}") from None
        return TorchScriptRuntime(torch.jit.optimize_for_inference(module.eval()), graph, device)
