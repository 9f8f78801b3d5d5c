#!/usr/bin/env python3
"""An interpreter that notes how much memory its program took, in the file that it is told of.

It is small itself: the kernel counts what a process was before it became another program.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

done = subprocess.run([sys.executable, *sys.argv[1:]], check=False)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
with Path(os.environ["CLAW_BENCHMARK_PEAKS"]).open("a") as peaks:
    peaks.write(f"{peak:.1f}\n")
sys.exit(done.returncode)
