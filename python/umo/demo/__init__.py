"""Three models behind the real server, with unified memory off and on: ``python -m umo.demo``."""
