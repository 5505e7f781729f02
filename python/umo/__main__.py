"""The command `umo`, also as `python -m umo`."""

import signal


def main() -> None:
    # Until the commands are loaded Ctrl-C ends the process and nothing more: there is nobody yet to say it in words.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .cli import app

    signal.signal(signal.SIGINT, signal.default_int_handler)
    app(prog_name="umo")


if __name__ == "__main__":
    main()
