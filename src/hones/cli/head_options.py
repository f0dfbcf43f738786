"""The options that say how heads are scored, of the commands that do it and of the plan that counts it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from typer import Option

if TYPE_CHECKING:
    from hones.method.head_ways import HeadWay


@dataclass(kw_only=True)
class HeadWayOptions:
    """Each head alone, or several replaced at once."""

    by: Annotated[
        str, Option(help="single: each head alone; subsets, conditional: also heads that make up for each other.")
    ] = "single"
    share: Annotated[
        float | None, Option(help="--by subsets: chance of each head to be in one. [default: 0.1]", show_default=False)
    ] = None
    subsets: Annotated[
        int | None,
        Option(min=1, help="--by subsets: how many. [default: 4 for each head]", show_default=False),
    ] = None
    ridge: Annotated[
        float | None, Option(min=0, help="--by subsets: shrinks the fit. [default: 0]", show_default=False)
    ] = None
    steps: Annotated[
        int | None,
        Option(min=1, help="--by conditional: sweeps over all heads. [default: 6]", show_default=False),
    ] = None

    def head_way(self, model: str | None = None) -> "HeadWay | None":
        """What is asked for; None: single.

        Args:
            model: whose heads it has to suit, where its config.json is on this machine.
        """
        from hones.method.head_ways import make_head_way
        from hones.models.place import heads_by_config

        way = make_head_way(self.by, share=self.share, subsets=self.subsets, ridge=self.ridge, steps=self.steps)
        heads = None if model is None else heads_by_config(model)
        if way is not None and heads is not None:
            way.of(heads)
        return way
