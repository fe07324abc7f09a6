"""Where this project is: for its programs that are seen in other places than they lie in, and need its packages."""

from __future__ import annotations

import os

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
