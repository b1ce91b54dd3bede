"""``python -m noisefilter`` is the command line."""

from noisefilter.cli import main

if __name__ == "__main__":
    main()
