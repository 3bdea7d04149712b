"""``python -m thalweg``: the command."""

from thalweg.cli import main

main()
