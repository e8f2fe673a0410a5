"""`python -m harness.cli` is the command `ood-harness`."""

from harness.cli.commands import main

main()
