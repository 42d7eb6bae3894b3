"""PyTriton: Triton's front end, batches by its scheduler, one Python worker."""

from __future__ import annotations

from typing import Any

import arguments
import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig
from work import Work


def main() -> None:
    """Serve until told to stop."""
    asked = arguments.parse()
    work = Work(asked.folder, asked.threads)

    @batch
    def infer(body: Any) -> dict[str, Any]:
        answers = work.answer([row[0] for row in body])
        return {"answer": np.array(answers, dtype=object)[:, None]}

    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=asked.port,
        grpc_port=asked.port + 1,
        metrics_port=asked.port + 2,
        allow_metrics=False,
        log_verbose=0,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name=work.task["name"],
            infer_func=[infer] * asked.workers,
            inputs=[Tensor(name="body", dtype=bytes, shape=(1,))],
            outputs=[Tensor(name="answer", dtype=bytes, shape=(1,))],
            config=ModelConfig(
                max_batch_size=asked.batch,
                batcher=DynamicBatcher(max_queue_delay_microseconds=1000 * asked.delay),
            ),
            strict=False,
        )
        triton.serve()


if __name__ == "__main__":
    main()
