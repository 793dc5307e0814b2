"""Weights sharded over two processes of gloo."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__)


def test_sharded_by_fsdp2_losses_gradients_and_weights_are_those_of_one_process(tmp_path):
    paths = [str(HERE.parents[2]), os.environ.get("PYTHONPATH", "")]
    process = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            str(HERE.with_name("sharded.py")),
        ],
        capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.returncode == 0, process.stdout + process.stderr
    assert sorted(x.name for x in tmp_path.iterdir()) == ["0.done", "1.done"]
