"""Every kernel compiles for GPUs that are not here, down to machine code, and fits their shared memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="the package triton is not installed")


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "dtype"), [(90, "bfloat16"), (80, "bfloat16"), (80, "float32"), (90, "float16")])
def test_kernels_compile_without_a_device(arch: int, dtype: str, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(tmp_path)}
    script = Path(__file__).with_name("ahead.py")
    command = [sys.executable, str(script), str(arch), dtype]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1].endswith("of 6 kernels"), found.stdout
