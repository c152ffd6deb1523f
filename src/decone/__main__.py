"""`python -m decone`, the same as `decone`."""

import sys

if __name__ == "__main__":
    try:
        from decone.cli.main import main
    except KeyboardInterrupt:  # the imports take seconds
        sys.exit(130)
    main()
