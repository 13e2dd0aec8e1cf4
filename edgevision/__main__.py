"""`python -m edgevision`: the command line, as `python -m edgevision.cli`."""

import runpy

if __name__ == "__main__":
    runpy.run_module("edgevision.cli", run_name="__main__")
