"""`python -m regraft`, for launchers that want a module."""

from __future__ import annotations

from .cli.main import main

main()
