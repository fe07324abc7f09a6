from services.api.service import setup
from shared.service import main

main("api", setup)
