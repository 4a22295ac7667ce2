"""The page of demo.py: what stands where. `utils.demo.events` does what its controls ask for."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from utils.demo import files, texts, views
from utils.demo.answers import NO_IMAGE, NO_OTHER, Answers
from utils.demo.checks import Limits
from utils.demo.events import connect
from utils.demo.guard import refuse_links
from utils.demo.models import Models
from utils.demo.scenes import SCENES
from utils.demo.session import Sessions, Settings

CSS = Path(__file__).with_name("page.css")
TITLE = "Anchor-SAM: see roads appear"
#: Words for the buttons that take something home.
TAKE_HOME = {
    files.MASK: "Mask (PNG or GeoTIFF)",
    files.GEOJSON: "Graph (GeoJSON)",
    files.GEOPACKAGE: "Graph (GeoPackage)",
    files.VIEW: "This view (PNG)",
}
#: The strides of Anchor-SAM's levels, the finest first.
LEVELS = [("4 px", 0), ("8 px", 1), ("16 px", 2), ("32 px", 3)]
#: For screen readers and keyboards: the status is read out when it changes, pictures have names,
#: and the arrow keys move between the choices of one group.
ACCESSIBLE = """() => {
  document.getElementById('status')?.setAttribute('aria-live', 'polite');
  const mend = () => {
    document.querySelectorAll('.named button:has(img):not([aria-label])').forEach(button =>
      button.setAttribute('aria-label',
        button.closest('.named').querySelector('label')?.innerText.trim() || 'Picture'));
    document.querySelectorAll('fieldset').forEach((group, number) =>
      group.querySelectorAll('input[type=radio]').forEach(choice => {
        if (choice.name !== `group-${number}`) choice.name = `group-${number}`;
      }));
  };
  mend();
  new MutationObserver(mend).observe(document.body, {childList: true, subtree: true});
}"""


class Page:
    """The controls by name; the blocks that hold them are `blocks`."""

    def __init__(self, models: Models, limits: Limits, thumbnails: dict[str, Path]) -> None:
        with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
            self.blocks = blocks
            gr.Markdown(f"# {TITLE}")
            with gr.Row(equal_height=False):
                with gr.Column(scale=1, min_width=300):
                    self._models(models)
                    self._images(limits, thumbnails)
                with gr.Column(scale=3, min_width=300):
                    self._result()
                    self._anchors()
            self.link = gr.Textbox(visible=False)

    def _models(self, models: Models) -> None:
        names, first = list(models.paths()), models.default()
        self.model = gr.Dropdown(names, value=first, label="Model", interactive=True)
        self.other = gr.Dropdown(
            [NO_OTHER, *names], value=NO_OTHER, label="Compare with", interactive=True
        )
        self.notice = gr.Markdown(elem_id="notice")

    def _images(self, limits: Limits, thumbnails: dict[str, Path]) -> None:
        self.upload = gr.File(label="Aerial image", height=150, elem_id="upload")
        kinds = f"JPEG, PNG or TIFF (GeoTIFF, too), {limits}. Or take a synthetic scene:"
        gr.HTML(f'<p class="limits">{kinds}</p>', padding=False)
        with gr.Row(elem_id="scenes"):
            self.scenes = {
                title: gr.Button(title, icon=str(thumbnails[title]), min_width=80)
                for title in SCENES
            }
        with gr.Accordion("Scale and true roads (optional)", open=False, elem_id="optional"):
            self.pixel_size = gr.Number(
                label="Pixel size in metres", placeholder="not known", minimum=0,
                elem_id="pixel_size",
            )  # fmt: skip
            self.truth = gr.File(label="True roads, a mask", height=150, elem_id="truth")
        for taken in (self.upload, self.truth):
            taken.async_move_resource_to_block_cache = refuse_links

    def _result(self) -> None:
        self.status = gr.HTML(texts.said(NO_IMAGE), elem_id="status", padding=False)
        self.view = gr.Radio(
            [views.OVERLAY, views.SLIDER, views.HEAT, views.GRAPH],
            value=views.OVERLAY,
            label="View",
            elem_id="view",
        )
        with gr.Row():
            self.threshold = gr.Slider(
                0.01, 0.99, Settings.threshold, step=0.01, label="Threshold", elem_id="threshold"
            )
            self.opacity = gr.Slider(
                0, 1, Settings.opacity, step=0.05, label="Opacity", elem_id="opacity"
            )
        with gr.Row(equal_height=False):
            self.picture = _picture("Result", "picture")
            self.other_picture = _picture("Result of the other model", "other_picture")
        self.before_after = gr.HTML(visible=False, elem_id="before_after")
        self.legend = gr.HTML(padding=False)
        self.facts = gr.HTML(elem_id="facts", padding=False)
        with gr.Row():
            self.take_home = {
                kind: gr.Button(words, size="md", min_width=140, elem_id=f"take_{kind}")
                for kind, words in TAKE_HOME.items()
            }

    def _anchors(self) -> None:
        with gr.Column(visible=False) as self.anchors:
            gr.Markdown(
                "### Latent anchors\nClick the picture, or type a pixel: where do the strips of "
                "the adapter read for it, and how far do they open the gate?",
            )
            with gr.Row():
                self.x = gr.Number(label="x (px)", precision=0, value=0, minimum=0, min_width=90)
                self.y = gr.Number(label="y (px)", precision=0, value=0, minimum=0, min_width=90)
                self.level = gr.Radio(LEVELS, value=0, label="Level (its stride)", min_width=220)
                self.show_anchors = gr.Button("Show", min_width=90, elem_id="show_anchors")
            with gr.Row(equal_height=False):
                self.points = _picture("Sampling points", "points")
                self.gate = _picture("Gate: bright is open", "gate")
            self.anchor_facts = gr.HTML(elem_id="anchor_facts", padding=False)


def build_page(
    models: Models, sessions: Sessions, limits: Limits, thumbnails: dict[str, Path]
) -> gr.Blocks:
    """The page over these models; `thumbnails` are small pictures of the scenes, by title."""
    page = Page(models, limits, thumbnails)
    with page.blocks:
        connect(page, Answers(page, models, sessions, limits))
        page.blocks.load(None, js=ACCESSIBLE)
    return page.blocks


def _picture(label: str, elem_id: str) -> gr.Image:
    shown = elem_id == "picture"
    return gr.Image(
        type="filepath",
        format="jpeg",
        label=label,
        interactive=False,
        min_width=240,
        buttons=["fullscreen"],
        visible=shown,
        elem_id=elem_id,
        elem_classes="named",
    )
