"""Write data of the micro world for `micro.yaml`: sentences on which no method was chosen.

python recipes/micro_data.py --out micro-data
"""

from __future__ import annotations

import argparse
from pathlib import Path

from micro.data import write_tasks

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    write_tasks(parser.parse_args().out, seed=5, tasks=("ner", "nli"), languages=("en", "de"))
