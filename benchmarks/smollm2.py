"""Write SmolLM2-135M, which a package of the index holds in four bits, as a directory that transformers loads.

python benchmarks/smollm2.py --out smollm2
"""

from __future__ import annotations

import argparse
from pathlib import Path

from _common import smollm2

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    print(smollm2(parser.parse_args().out))
