"""Makes the rank_threads.py of the tests of parallel training importable."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "parallel"))
