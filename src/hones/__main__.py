"""`python -m hones`."""

from hones.cli import main

main()
