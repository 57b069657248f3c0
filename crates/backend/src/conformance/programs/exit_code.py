# Ends with a code of its own.
# sim: exit 7
import sys

sys.exit(7)
