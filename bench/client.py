"""What umo.client saves against tritonclient: `umo bench --only client`, as a part of `make bench`.

python bench/client.py [--turns 5]
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))

from umo.bench.client import main  # noqa: E402

if __name__ == "__main__":
    os.environ["UMO_BENCH_COMMAND"] = "make bench (bench/client.py)"
    main()
