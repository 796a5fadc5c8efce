"""The same as ``s3prl-interfaces bench``: how fast the interfaces are, and how much memory they take."""

import sys

from s3prl_interfaces.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
