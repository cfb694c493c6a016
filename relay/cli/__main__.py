"""`python -m relay.cli`: the same as `scrapellm-relay`."""

from relay.cli.app import main

if __name__ == "__main__":
    main()
