"""`python -m ownhand` is the command `ownhand`."""

from ownhand.cli import main

if __name__ == "__main__":
    main()
