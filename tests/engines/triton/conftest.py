"""Kernels run in Triton's interpreter where there is no GPU; it has to be asked for before the first import."""

import os
import sys

import torch

if not torch.cuda.is_available() and "triton" not in sys.modules:
    os.environ["TRITON_INTERPRET"] = "1"
