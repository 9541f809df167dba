"""`python -m eft.cli` is `eft`."""

from eft.cli.main import app

app(prog_name="eft")
