"""What the Python package costs: `umo bench --only numpy`, as a part of `make bench`.

python bench/python_api.py [--turns N]
"""

import os

from umo.bench.python_api import main

if __name__ == "__main__":
    os.environ["UMO_BENCH_COMMAND"] = "make bench (bench/python_api.py)"
    main()
