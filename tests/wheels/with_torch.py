"""Take a step with the installed package and a torch from elsewhere; print torch's version and the
OpenMP runtimes of the process as JSON.

python with_torch.py FOLDER_WITH_TORCH
"""

import json
import sys

sys.path.append(sys.argv[1])  # after the environment's own: cosmic is the wheel's

import torch

import cosmic
import cosmic.ops
from cosmic.train import machine

assert sys.prefix in cosmic.__file__, f"cosmic is not the wheel's: {cosmic.__file__}"
param = torch.nn.Parameter(torch.ones(100, 100))
param.grad = torch.ones(100, 100)
cosmic.Cosmic([param], lr=0.5).step()
assert torch.allclose(param, torch.full((100, 100), 0.5), atol=1e-3), param
print(json.dumps({"torch": torch.__version__, "runtimes": machine.openmp_runtimes()}))
