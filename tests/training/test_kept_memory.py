"""Freed memory that stays with the process."""

import resource
import sys

import pytest
import torch

from orpo.training.kept_memory import keep_freed_memory, return_freed_memory


def page_faults_of_a_block() -> int:
    """Count the pages that the system hands over for 64 MB that are taken, written and freed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16 * 2**20).sum()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_a_block_taken_again_costs_no_new_pages() -> None:
    """Small objects may lie in the blocks' old places, and then the heap grows a few times more."""
    if not keep_freed_memory():
        pytest.skip("not glibc")
    try:
        assert min(page_faults_of_a_block() for _ in range(30)) < 100
    finally:
        assert return_freed_memory()
