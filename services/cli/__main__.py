"""`python -m services.cli --config FILE`."""

from services.cli.service import setup
from shared.service import main

main("cli", setup)
