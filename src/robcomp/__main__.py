"""`python -m robcomp` is the command `robcomp`."""

import sys

from robcomp.cli import main

sys.exit(main())
