"""The page itself, in gradio: what stands where, and what leads to what.

Nothing is sent anywhere: no analytics, no fonts or scripts of others, no link for the public.
"""

from importlib.resources import files
from typing import Any

import gradio as gr  # pyright: ignore[reportMissingImports]  of an extra

from hones.app import shown
from hones.app.callbacks import FIELDS, NO_SCALES, Callbacks
from hones.app.desk import Desk, Form
from hones.errors import HonesError

LARGEST_UPLOAD = "64mb"
FIRST_PORT = 7860


class Page:
    """The page in front of a desk.

    parts: its components by name. blocks: the page as gradio has it.
    """

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.does = Callbacks(desk)
        self.first = Form(self.does.model, self.does.task)
        self.parts: dict[str, Any] = {}
        self.script = files("hones.app").joinpath("page.js").read_text(encoding="utf-8")
        with gr.Blocks(title="hones", analytics_enabled=False, fill_width=True) as self.blocks:
            self._lay_out()
            self._connect()

    def open(self, host: str, port: int | None) -> str:
        """Listen there until `close`; the address of the page.

        Args:
            port: None: the first that is free from 7860 on.

        Raises:
            HonesError: it is in use, or the host is none of this machine.
        """
        style = files("hones.app").joinpath("page.css").read_text(encoding="utf-8")
        of_system = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Arial", "sans-serif"]
        try:
            self.blocks.queue().launch(
                server_name=host,
                server_port=port,
                share=False,
                inbrowser=False,
                prevent_thread_lock=True,
                quiet=True,
                footer_links=[],
                max_file_size=LARGEST_UPLOAD,
                ssr_mode=False,
                enable_monitoring=False,
                pwa=False,
                mcp_server=False,
                theme=gr.themes.Base(font=of_system, font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"]),
                css=style,
            )
        except OSError as error:
            where = f"{host}, port {port if port is not None else f'{FIRST_PORT} or above'}"
            raise HonesError(f"cannot listen on {where} ({error})", do="choose another --host or --port") from error
        return str(self.blocks.local_url)

    def close(self) -> None:
        """Stop listening."""
        self.blocks.close(verbose=False)

    def _lay_out(self) -> None:
        parts, offered = self.parts, self.desk.offered
        run = "" if offered.results is None else f" Run folder: {offered.results.folder}."
        gr.HTML(shown.heading(f"Ask a model about a picture, edit it, and see what it says then.{run}"), elem_id="head")
        parts["notice"] = gr.HTML("", elem_id="notice")
        parts["path"] = gr.State(None)
        parts["explanation"] = gr.State(None)
        parts["asked"] = gr.State(False)
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=300):
                self._lay_out_question()
            with gr.Column(scale=4, min_width=320):
                parts["answers"] = gr.HTML(shown.answers(None), elem_id="answers")
                parts["where"] = gr.Button("Where in the picture", size="sm", elem_id="where")
                parts["where_maps"] = gr.HTML("", elem_id="maps")
                with gr.Accordion("This edit as a command and as JSON", open=False):
                    parts["command"] = gr.Code("", language="shell", label="hones ask", wrap_lines=True, max_lines=6)
                    parts["json"] = gr.Code("", language="json", label="JSON", max_lines=14)
                with gr.Accordion("Neurons", open=False):
                    parts["table"] = gr.HTML(self.does.neurons(self.first), elem_id="neurons")
            with gr.Column(scale=3, min_width=300):
                self._lay_out_edit()
        gallery = self.does.gallery()
        if gallery:
            with gr.Accordion("Items of the run whose answer masking or steering changes", open=True):
                parts["gallery"] = gr.HTML(gallery, js_on_load=self.script, elem_id="gallery")

    def _lay_out_question(self) -> None:
        parts, desk = self.parts, self.desk
        parts["picture"] = gr.Image(
            type="filepath",
            image_mode=None,
            sources=["upload", "clipboard"],
            label="Picture",
            height=260,
            buttons=[],
            elem_id="picture",
            interactive=True,
        )
        parts["text"] = gr.Textbox(label="Question", lines=1, elem_id="question", **self.does.text(self.does.task))
        parts["ask"] = gr.Button("Ask", variant="primary", elem_id="ask")
        with gr.Row():
            parts["task"] = gr.Dropdown(
                [*desk.offered.tasks], value=self.does.task, label="In the words of", min_width=120
            )
            parts["model"] = gr.Dropdown([*desk.specs], value=self.does.model, label="Model", min_width=120)
        with gr.Accordion("Box and further fields of the prompt", open=False):
            parts["box"] = gr.Textbox("", label="Box to outline: X,Y,W,H in pixels", placeholder="10,20,60,30")
            parts["fields"] = gr.Textbox("", label="Fields, one NAME=VALUE a line", lines=2)

    def _lay_out_edit(self) -> None:
        parts, does, offered = self.parts, self.does, self.desk.offered
        fits = self.desk.fits(does.model)
        drawn = does.map(self.first)
        parts["map"] = gr.HTML(drawn, js_on_load=self.script, elem_id="map", apply_default_css=False)
        parts["explain"] = gr.Button("Shade by what this answer needs", size="sm", elem_id="explain")
        parts["heads"] = gr.Dropdown(
            does.sites(does.model),
            value=[],
            multiselect=True,
            label="Heads replaced (layer.head)",
            elem_id="heads",
        )
        parts["neurons"] = gr.CheckboxGroup(
            [*offered.neurons],
            value=[],
            label="Neurons masked",
            visible=fits and bool(offered.neurons),
            elem_id="masks",
        )
        parts["scales"] = gr.Radio(
            [NO_SCALES, *offered.scales],
            value=NO_SCALES,
            label="Learned scales",
            visible=fits and bool(offered.scales),
            elem_id="scales",
        )
        parts["clear"] = gr.Button("Take the edit back", size="sm", elem_id="clear")

    def _connect(self) -> None:
        parts, does = self.parts, self.does
        fields = [parts["path" if name == "picture" else name] for name in FIELDS]
        state = [*fields, parts["explanation"], parts["asked"]]
        out = [
            parts[name]
            for name in ("notice", "answers", "map", "command", "json", "asked", "where_maps", "explanation")
        ]
        answering = {"concurrency_id": "model", "concurrency_limit": 1, "show_progress_on": parts["answers"]}
        ask = {"fn": does.ask, "inputs": state, "outputs": out, **answering}
        follow = {**ask, "fn": does.follow}

        gr.on([parts["ask"].click, parts["text"].submit], **ask)
        changed = [parts[name].input for name in ("heads", "neurons", "scales")]
        gr.on(changed, **follow, trigger_mode="always_last")

        def clicked(event: gr.EventData, heads: list[str]) -> list[str]:
            return does.click(heads, str(event.pick))  # pyright: ignore[reportAttributeAccessIssue]

        parts["map"].click(clicked, parts["heads"], parts["heads"], show_progress="hidden").then(**follow)
        edit = [parts[name] for name in ("heads", "neurons", "scales")]
        parts["clear"].click(lambda: ([], [], NO_SCALES), None, edit, show_progress="hidden").then(**follow)

        taken = [parts[name] for name in ("path", "picture", "notice", "asked", "answers")]
        no_maps = {"fn": lambda: "", "inputs": None, "outputs": parts["where_maps"], "show_progress": "hidden"}
        parts["picture"].upload(does.take, parts["picture"], taken, preprocess=False).then(**no_maps)
        parts["picture"].clear(does.without_picture, None, taken).then(**no_maps)
        parts["task"].input(
            does.choose_task,
            [parts["model"], parts["task"], parts["heads"]],
            [parts[name] for name in ("text", "map", "table", "explanation")],
        )
        of_model = [parts[name] for name in ("notice", "heads", "neurons", "scales", "map", "explanation", "asked")]
        parts["model"].input(does.choose_model, [parts["model"], parts["task"]], [*of_model, parts["answers"]]).then(
            **no_maps
        )
        explained = [parts[name] for name in ("notice", "explanation", "map", "table")]
        shows = {"concurrency_id": "model", "concurrency_limit": 1, "show_progress_on": parts["where_maps"]}
        parts["where"].click(does.where, fields, [parts["notice"], parts["where_maps"]], **shows)
        parts["explain"].click(does.explain, fields, explained, concurrency_id="model", concurrency_limit=1)
        if "gallery" in parts:
            names = (
                "path",
                "picture",
                "notice",
                "asked",
                "task",
                "text",
                "fields",
                "box",
                "heads",
                "neurons",
                "scales",
            )
            chosen = [parts[name] for name in (*names, "table", "explanation")]

            def selected(event: gr.EventData, model: str) -> tuple[Any, ...]:
                return does.choose_item(model, int(event.pick))  # pyright: ignore[reportAttributeAccessIssue]

            parts["gallery"].click(selected, parts["model"], chosen).then(**follow)
