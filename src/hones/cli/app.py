"""`hones app`: the page in which one asks a model, edits it by hand, and sees what it says then."""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import Annotated

from typer import Argument, Option

from hones.cli.options import LoadingOptions, NewTokens, Revision
from hones.cli.shown import say, warn
from hones.errors import HonesError

TINY = "tiny-llava"


@dataclass(kw_only=True)
class App(LoadingOptions):
    """A page in the browser: ask about a picture, replace heads, mask neurons, switch scales on, see what changes.

    With a run folder its head map, neuron sets, scales and the items whose answers it changes are there to click.

    Example: hones app runs/a, or hones app --model tiny-llava
    """

    run: Annotated[Path | None, Argument(metavar="[RUN]", help="Run folder. [default: a model alone]")] = None
    model: Annotated[
        list[str] | None,
        Option(help="Hub id, local folder, or built in; repeatable, the first is asked first. [default: the run's]"),
    ] = None
    task: Annotated[
        list[str] | None, Option(help="TASK.yaml or FILE.py:CLASS to ask in the words of, too; repeatable.")
    ] = None
    dtype: Annotated[str, Option(help="auto (as the run), float32, bfloat16 or float16.")] = "auto"
    revision: Revision = None
    max_new_tokens: NewTokens = 24
    host: Annotated[
        str, Option(help="Address to listen on; 0.0.0.0 lets everyone who reaches this machine use the page.")
    ] = "127.0.0.1"
    port: Annotated[int | None, Option(min=1, max=65535, help="[default: the first that is free from 7860 on]")] = None

    def execute(self) -> None:
        from hones.app.offered import read_offered, spec_of_run
        from hones.models.place import check_place

        if find_spec("gradio") is None:
            raise HonesError("hones app needs gradio", do="pip install 'hones[app]'")
        for model in self.model or ():
            check_place(model)
        offered = read_offered(self.run, self.task or ())
        for line in offered.skipped:
            warn(line)
        specs = [self.spec_of(model, self.dtype, self.revision) for model in self.model or ()]
        if not specs and offered.results is None:
            specs = [self.spec_of(TINY, self.dtype, self.revision)]
        if not specs and offered.results is not None:
            of_run = spec_of_run(offered.results)
            dtype = of_run.dtype if self.dtype == "auto" else self.dtype
            specs = [self.spec_of(of_run.name, dtype, self.revision or of_run.revision)]
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported, which may ask it then

        from hones.app.desk import Desk
        from hones.app.page import Page

        desk = Desk(specs, offered, self.max_new_tokens)
        desk.vlm(specs[0].name)
        if not desk.fits(specs[0].name):
            warn(f"{self.run} is of another model: its head scores, neurons and scales are not offered")
        page = Page(desk)
        say(f"open {page.open(self.host, self.port)} in a browser; Ctrl-C ends it")
        try:
            Event().wait()
        except KeyboardInterrupt:
            say("closed")
        finally:
            page.close()
