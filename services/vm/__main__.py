from services.vm.service import setup
from shared.service import main

main("vm", setup)
