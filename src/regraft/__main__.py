"""`python -m regraft`, for launchers that want a module."""

from .cli import main

main()
