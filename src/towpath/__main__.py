"""``python -m towpath``."""

from towpath.cli.main import main

main()
