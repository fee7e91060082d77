"""`keras-flowers completion`: completes commands and options in a shell."""

import click
from click.shell_completion import get_completion_class
from keras_flowers_cli.options import setting_options

# The name under which click looks for a request of the shell.
_VARIABLE = "_KERAS_FLOWERS_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@setting_options("completion")
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what SHELL runs to complete commands and options.

    \b
    bash:  echo 'eval "$(keras-flowers completion bash)"' >> ~/.bashrc
    zsh:   echo 'eval "$(keras-flowers completion zsh)"' >> ~/.zshrc
    fish:  keras-flowers completion fish
             > ~/.config/fish/completions/keras-flowers.fish
    """  # noqa: D301  click reads the backspace
    kind = get_completion_class(shell)
    assert kind is not None
    program = context.find_root().command
    click.echo(kind(program, {}, "keras-flowers", _VARIABLE).source())
