"""The entry point, also of `python -m regraft`: a signal ends it in a sentence while it still imports its commands."""

from __future__ import annotations

import sys

from .stopping import Stopped, stoppable


def main() -> None:
    """Run the command line; Ctrl-C and SIGTERM say how to go on and end with 128 and the signal's number."""
    with stoppable():
        try:
            from .cli.main import main as run

            run()
        except Stopped as stopped:
            notes = ["nothing is half written; run the same command again", *getattr(stopped, "__notes__", ())]
            sys.stderr.write(f"stopped: {notes[-1]}\n")
            sys.exit(128 + stopped.number)


if __name__ == "__main__":
    main()
