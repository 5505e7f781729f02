"""`python -m umo`."""

from .cli import app

if __name__ == "__main__":
    app(prog_name="umo")
