"""``python -m xinc_captum.cli`` is ``xinc``."""

from .main import main

if __name__ == "__main__":
    main()
