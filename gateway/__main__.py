"""`python -m gateway` does the same as the command `imagegate`."""

from gateway.cli.main import app

if __name__ == "__main__":
    app(prog_name="imagegate")
