import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once
ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.slow
def test_live_benchmark_prints_a_row_for_each_way():
    command = [sys.executable, "benchmarks/live.py", "--tiny", "--rows", "push", "live", "file"]
    environment = {**os.environ, "KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    rows = [[x.strip() for x in line.split("|")[1:-1]] for line in result.stdout.splitlines()]
    found = {row[0]: row for row in rows if len(row) == 8 and row[0] in ("push", "live", "file")}
    assert set(found) == {"push", "live", "file"}
    assert [int(found[name][2]) for name in ("push", "file")] == [5, 25]
    assert int(found["live"][2]) + int(found["live"][3]) == 25
    assert all(float(row[6]) >= float(row[5]) > 0 for row in found.values())
    assert result.stdout.count("Memory: ") == 2
