"""Pixtral's processor from its parts: the family's own module cannot be imported without torchvision.

A picture of h x w pixels, resized by the image processor to whole patches of p pixels, becomes h/p rows of w/p picture
tokens; each row ends with the break token, the last one with the end token. Used by Pixtral in LLaVA and Mistral 3.
"""

from typing import Any, ClassVar, no_type_check

from transformers.processing_utils import ProcessorMixin


class PixtralParts(ProcessorMixin):
    """Pictures and text as `PixtralProcessor` prepares them."""

    text_kwargs: ClassVar[Any] = {"return_tensors": "pt"}  # pyright: ignore[reportIncompatibleVariableOverride]
    images_kwargs: ClassVar[Any] = {"return_tensors": "pt"}  # pyright: ignore[reportIncompatibleVariableOverride]

    @no_type_check  # transformers reads the names of the parameters from its code object
    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        patch_size: int = 16,
        spatial_merge_size: int = 1,
        chat_template: str | None = None,
        image_token: str = "[IMG]",
        image_break_token: str = "[IMG_BREAK]",
        image_end_token: str = "[IMG_END]",
        **_: Any,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.patch_size = patch_size
        self.spatial_merge_size = spatial_merge_size
        self.image_token = image_token
        self.image_break_token = image_break_token
        self.image_end_token = image_end_token
        self.image_token_id = tokenizer.convert_tokens_to_ids(image_token)
        self.image_break_token_id = tokenizer.convert_tokens_to_ids(image_break_token)
        self.image_end_token_id = tokenizer.convert_tokens_to_ids(image_end_token)

    @property
    def image_token_ids(self) -> list[int | None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return [self.image_token_id, self.image_break_token_id, self.image_end_token_id]

    @property
    def _pixels_per_token(self) -> int:
        return self.patch_size * self.spatial_merge_size

    def _process_images(self, images: Any, **options: Any) -> Any:
        return super()._process_images(images, **{**options, "patch_size": self._pixels_per_token})

    def replace_image_token(self, image_inputs: Any, image_idx: int, **_: Any) -> str:
        height, width = image_inputs["image_sizes"][image_idx]
        rows = height // self._pixels_per_token
        row = self.image_token * (width // self._pixels_per_token)
        return self.image_break_token.join([row] * rows) + self.image_end_token

    @property
    def model_input_names(self) -> list[str]:
        names = self.tokenizer.model_input_names + self.image_processor.model_input_names  # pyright: ignore
        return [*names, "image_sizes"]
