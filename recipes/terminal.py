"""Write docs/plan.svg: what `regraft plan` of the README prints, as a picture of the terminal.

    python recipes/terminal.py --module my-lora

The module is the one that the README trains before it.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from contextlib import suppress
from pathlib import Path

from regraft.__main__ import main
from regraft.cli.app import console
from regraft.demo.shipped import model_path

PICTURE = Path(__file__).parents[1] / "docs" / "plan.svg"

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", required=True)
    module = str(Path(parser.parse_args().module).absolute())
    console.record, console.width = True, 80
    # Lines that a terminal wraps: a picture would cut them.
    printed = console.print
    console.print = lambda *objects, soft_wrap=False, **how: printed(*objects, **how)  # type: ignore[method-assign]  # noqa: ARG005
    texts = "package:regraft/demo/tasks/ner/en/train.conllu"
    # The directory that it is installed in is nobody else's: names of the models alone.
    os.chdir(model_path("teacher").parent)
    sys.argv = ["regraft", "plan", module, "--teacher", "wide-teacher", "--student", "apart-student"]
    sys.argv += ["--texts", texts, "--column", "tokens", "--max-texts", "300"]
    with suppress(SystemExit):
        main()
    picture = console.export_svg(title="regraft plan")
    picture = re.sub(r"\s*@font-face \{.*?\}\n", "\n", picture, flags=re.DOTALL)  # none from another site
    PICTURE.write_text(picture, encoding="utf-8")
