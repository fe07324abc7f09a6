from services.metrics.service import setup
from shared.service import main

main("metrics", setup)
