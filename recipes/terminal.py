"""Write docs/plan.svg: what `regraft plan` of the README prints, as a picture of the terminal.

    python recipes/terminal.py --module my-lora

The module is the one that the README trains before it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from regraft.cli.app import console
from regraft.cli.main import main
from regraft.demo.shipped import model_path

PICTURE = Path(__file__).parents[1] / "docs" / "plan.svg"

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", required=True)
    module = parser.parse_args().module
    console.record, console.width = True, 80
    texts = "package:regraft/demo/tasks/ner/en/train.conllu"
    sys.argv = ["regraft", "plan", module, "--student", "package:regraft/demo/models/apart-student", "--quiet"]
    sys.argv += ["--texts", texts, "--column", "tokens", "--max-texts", "300"]
    main()
    # The directory that it is installed in is nobody else's.
    place = str(model_path("teacher").parent)
    picture = console.export_svg(title="regraft plan")
    PICTURE.write_text(picture.replace(place + "/", ""), encoding="utf-8")
