"""`vpgc doctor`."""

import typer

from keras_vpgc.cli.answer import Answer, Json


def command(json: Json = False):
    """Say what of the installation works, and what to do.

    Looks at backends, devices, versions, models, encoders and disks; fetches nothing. Exit code 0:
    videos can be prepared, trained on and driven. 3: something for that is missing or broken.

    Example: vpgc doctor

    Example: vpgc doctor --json
    """
    with Answer(json) as answer:
        typer.echo("Loading each backend takes some seconds.", err=True)
        from keras_vpgc.doctor import examine

        found = examine()
        answer.give(**found.as_dict())
        answer.say("\n".join(found.sentences()))
    raise typer.Exit(0 if found.ready else 3)
