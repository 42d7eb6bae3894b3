"""Whether a further version fits into memory."""

from __future__ import annotations

import pytest

from polyhead.serving.bundle import Bundle
from polyhead.serving.torchserve.room import COPIES, WORKER_BYTES, available, needed

MIB = 1 << 20


def cgroup(folder, limit: str, used: int, cached: tuple[int, int]):
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    stat = f"anon 7\ninactive_file {cached[0]}\nactive_file {cached[1]}\nslab 3\n"
    (folder / "memory.stat").write_text(stat)
    return folder


def test_a_container_has_what_it_may_use_and_what_the_page_cache_gives_back(tmp_path):
    assert available(cgroup(tmp_path, str(64 * MIB), 60 * MIB, (10 * MIB, 5 * MIB))) == 19 * MIB
    assert available(cgroup(tmp_path, str(64 * MIB), 80 * MIB, (MIB, 0))) == 0


@pytest.mark.parametrize("limit", ["max", str(1 << 60)])
def test_without_a_limit_the_machine_counts(tmp_path, limit):
    whole = available(tmp_path / "none")
    assert whole > 0
    assert available(cgroup(tmp_path, limit, 0, (0, 0))) == pytest.approx(whole, rel=0.5)


def test_a_worker_needs_its_own_memory_and_its_largest_graph(digits_bundle):
    bundle = Bundle.open(digits_bundle)
    sizes = [sum(bundle.manifest.files[name].size for name in graph.files) for graph in bundle.manifest.graphs]
    assert needed(bundle) == WORKER_BYTES + COPIES * max(sizes)
