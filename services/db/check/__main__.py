import sys

from services.db.check.command import main

sys.exit(main())
