"""What people type: the commands, and the same from Python."""

from harness.cli.commands import app as app
from harness.cli.commands import main as main
