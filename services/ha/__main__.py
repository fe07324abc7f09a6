from services.ha.service import setup
from shared.service import main

main("ha", setup)
