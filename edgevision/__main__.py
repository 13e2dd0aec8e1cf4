"""`python -m edgevision`; nothing that a verb imports comes from the working directory."""

import os
import sys

if __name__ == "__main__":
    # `-m` puts the working directory first, and what lies there may be a stranger's.
    if not getattr(sys.flags, "safe_path", False) and sys.path[:1] == [os.getcwd()]:
        del sys.path[0]

    from edgevision.cli import main

    sys.exit(main())
