"""The host's side of a board that answers SSH: reach it, deploy to it, run there.

`receiver.py` runs on the board's own Python; nothing else here does.
"""
