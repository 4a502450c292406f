"""What keeps a use case right: the watch and its episodes (watch/), drift (drift/), status, ledger, housekeeping."""
