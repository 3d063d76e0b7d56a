"""`python -m dimerec`: the command line."""

from dimerec.cli import main

if __name__ == "__main__":
    main()
