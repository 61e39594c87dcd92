"""The command line: thin commands over the library. A user's mistake is one sentence and exit code 2."""
