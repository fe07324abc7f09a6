from services.db.service import setup
from shared.service import main

main("db", setup)
