from services.network.service import setup
from shared.service import main

main("network", setup)
