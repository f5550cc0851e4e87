"""`python -m transformer_kit` is `kit`."""

from transformer_kit.cli.main import main

if __name__ == "__main__":
    main()
