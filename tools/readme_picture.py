"""Draw the README's picture from the artifacts of a run.

python tools/readme_picture.py hones-demo/tiny-qwen2.5-vl docs/demo.svg
"""

import argparse
import io
import re
from pathlib import Path

from rich.columns import Columns
from rich.console import Console, Group
from rich.text import Text

from hones.method.masking import MaskingResult
from hones.method.steering.evaluate import SteeringResult
from hones.runs.artifacts import read_heads, read_result
from hones.tabular import together
from hones.tasks import TASKS
from hones.views.terminal import head_map, show


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("to", type=Path)
    options = parser.parse_args()
    tasks = [task for task in TASKS if (options.run / task / "steering/hones/result.json").exists()]
    maps = [
        Group(Text(f"{task}: critical heads", style="bold"), head_map(read_heads(options.run / task / "heads.json")))
        for task in tasks
    ]
    masking = [(task, read_result(options.run / task / "masking.json", MaskingResult)) for task in tasks]
    steering = [
        (task, read_result(options.run / task / "steering" / "hones" / "result.json", SteeringResult)) for task in tasks
    ]
    console = Console(record=True, width=132, file=io.StringIO())
    console.print(Columns(maps, equal=True), "", show(together(masking), together(steering)))
    options.to.parent.mkdir(parents=True, exist_ok=True)
    picture = console.export_svg(title=f"hones demo: {options.run.name}")
    picture = re.sub(r"@font-face \{.*?\}|<!--.*?-->", "", picture, flags=re.DOTALL)  # no font or link from elsewhere
    options.to.write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
