"""`python -m autopeft` is the command `autopeft`."""

from autopeft.cli import main

main()
