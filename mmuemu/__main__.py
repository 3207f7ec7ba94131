"""``python -m mmuemu`` is the ``mmuemu`` command."""

import sys

from mmuemu.cli import main

if __name__ == "__main__":
    sys.exit(main())
