"""`python -m regraft`, for launchers that want a module."""

from .cli.main import main

main()
