"""`python -m qiao` is the same program as `qiao`."""

from qiao.cli.main import main

if __name__ == "__main__":
    main()
