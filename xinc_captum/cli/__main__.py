"""``python -m xinc_captum.cli`` is ``xinc``."""

from . import main

if __name__ == "__main__":
    main()
