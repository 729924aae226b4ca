"""`python -m earshot` is the command `earshot`."""

from earshot.commands.main import main

main()
