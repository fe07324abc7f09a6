from services.alerts.service import setup
from shared.service import main

main("alerts", setup)
