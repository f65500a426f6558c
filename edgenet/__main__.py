"""`python -m edgenet`."""

from edgenet.cli import main

if __name__ == "__main__":
    main()
