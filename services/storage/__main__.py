from services.storage.service import setup
from shared.service import main

main("storage", setup)
