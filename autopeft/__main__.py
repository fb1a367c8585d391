"""`python -m autopeft` is the command `autopeft`."""

from autopeft.cli.app import main

main()
