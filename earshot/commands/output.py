"""What the commands print."""

import click

from earshot.core.messages import for_output


def echo(text: str) -> None:
    """Print lines; each is printable and without passwords and tokens. Escape what a name may hold before joining."""
    for line in text.split("\n"):
        click.echo(for_output(line))
