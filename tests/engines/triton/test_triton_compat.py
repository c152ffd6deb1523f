"""The compiler of the kernels, and the devices that are refused."""

from types import SimpleNamespace

import pytest
import torch
from tests.engines.triton.cases import DEVICES

from decone.engines.triton import triton_compat


def test_without_triton_a_kernel_stays_a_function_and_the_mend_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_compat, "compiler", None)
    assert triton_compat.jit(len) is len
    assert not triton_compat.interpreted()
    with pytest.raises(ValueError, match=r"needs the package triton; install it, or pass engine='chunked'"):
        triton_compat.check(torch.device("cuda"))


@pytest.mark.parametrize(
    ("device", "capability", "hip"), [("cpu", (9, 0), None), ("cuda", (7, 5), None), ("cuda", (9, 0), "6.4")]
)
def test_a_device_without_kernels_is_refused(
    device: str, capability: tuple[int, int], hip: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton_compat, "compiler", SimpleNamespace(JITFunction=object))  # compiles
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    with pytest.raises(ValueError, match=f"compute capability 8.0 or newer, got {device}; pass engine='chunked'"):
        triton_compat.check(torch.device(device))


def test_ampere_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_compat, "compiler", SimpleNamespace(JITFunction=object))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    triton_compat.check(torch.device("cuda"))


@pytest.mark.parametrize("device", DEVICES)
def test_the_device_of_these_tests_is_taken(device: str) -> None:
    triton_compat.check(torch.device(device))


def test_sizes_that_change_with_every_batch_are_not_compiled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def jit(function: object, do_not_specialize: list[str]) -> list[str]:
        return do_not_specialize

    def kernel(out: int, N: int, V: int, U: int, L: int) -> None:  # as kernels name their sizes
        pass

    monkeypatch.setattr(triton_compat, "compiler", SimpleNamespace(jit=jit))
    assert triton_compat.jit(kernel) == ["N", "U", "L"]
