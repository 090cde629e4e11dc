"""`python -m robcomp` is the command `robcomp`."""

import sys

from robcomp.cli.parser import main

sys.exit(main())
