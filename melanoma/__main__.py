"""`python -m melanoma COMMAND`."""

from melanoma.cli import main

if __name__ == "__main__":
    main()
