"""`python -m edgevision.cli`."""

import sys

from edgevision.cli import main

if __name__ == "__main__":
    sys.exit(main())
