"""Scales for other people: exported in forms that other software loads, uploaded, and asked a question with."""

from hones.sharing.ask import Asked, ask
from hones.sharing.export import Exported, export_scales
from hones.sharing.push import push_export

__all__ = ["Asked", "Exported", "ask", "export_scales", "push_export"]
