"""``python -m relpt``, the same as the command ``relpt``."""

import sys

from relpt.cli import main

if __name__ == "__main__":
    sys.exit(main())
