#!/usr/bin/env bash
# What only a machine with a GPU can show: the tests marked `gpu`, the interfaces' speed, a run of two lanes against the
# CPU. Uses the Python that is active, with the package and its extra `test` installed; downloads nothing.
#     bash scripts/check_gpu.sh
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"  # this checkout, whatever is installed

python - <<'PYTHON'
import sys
import torch
if not torch.cuda.is_available():
    sys.exit("check_gpu.sh: PyTorch sees no GPU here (torch.cuda.is_available() is False)")
print(torch.cuda.get_device_name(), torch.__version__)
PYTHON
python -m pytest -m gpu
python scripts/compare_devices.py --device cuda
python scripts/benchmark_interfaces.py --device cuda
