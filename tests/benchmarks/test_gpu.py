"""What `make gpu` says where there is no GPU, and where there is one that fails."""

from __future__ import annotations

import pytest
import torch

from benchmarks import gpu
from inspection.errors import DeviceError


@pytest.mark.parametrize(("required", "status"), [("0", 0), ("1", 1)])
def test_no_gpu_is_a_failure_only_where_one_is_required(
    required: str,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("REQUIRE_GPU", required)

    assert gpu.main([]) == status

    assert "no GPU here" in capsys.readouterr().out


def test_a_gpu_that_fails_is_a_failure_though_none_is_required(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(rounds: int, only_check: bool) -> int:
        raise DeviceError("work on a stream failed")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "_measure", fail)
    monkeypatch.delenv("REQUIRE_GPU", raising=False)

    assert gpu.main([]) == 1

    assert "the GPU failed: work on a stream failed" in capsys.readouterr().out
