"""The worker's fast path: TorchServe 0.12.0's protocol, read and written in one sweep per batch.

TorchServe's own worker makes one system call per field, a dozen dictionaries per request and two log lines per batch.
Here a batch is read through a buffer (`reader`), headers that repeat are recognised as bytes (`blocks`), and the
answers go out as one message (`writer`). `install` puts that into the running worker, where its sources are exactly
those it was written for.
"""
